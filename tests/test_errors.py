"""Errors are one line, wherever they were raised."""

import pytest
from torch.utils.data import DataLoader, Dataset

from dfl.data.images.decode import UnreadableImageError
from dfl.errors import DataError, DflError, named, one_line


class Broken(Dataset[int]):
    """A set whose every item is an error."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        raise DataError("set: row 0 has moved; read it again")


def test_error__raised_in_a_worker_is_its_line() -> None:
    with pytest.raises(DataError) as caught:
        list(DataLoader(Broken(), num_workers=1))
    assert str(caught.value) == caught.value.message == "set: row 0 has moved; read it again"


@pytest.mark.parametrize("kind", [DflError, DataError, UnreadableImageError])
def test_error__keeps_its_line_of_a_traceback(kind: type[DflError]) -> None:
    name = f"{kind.__module__}.{kind.__qualname__}"
    text = f"Caught {kind.__name__}.\nOriginal Traceback:\n  ...\n{name}: a.png: broken\n"
    assert str(kind(text)) == "a.png: broken"


@pytest.mark.parametrize(
    ("err", "line"),
    [
        (ValueError("two\n  lines\tand a tab "), "two lines and a tab"),
        (KeyError(), "KeyError"),
        ("a text\nof its own", "a text of its own"),
    ],
)
def test_one_line__says_all_in_one_line(err: Exception | str, line: str) -> None:
    assert one_line(err) == line


def test_one_line__is_cut_where_asked() -> None:
    assert one_line(ValueError("a long reason"), 6) == "a long"


def test_named__ten_and_a_count() -> None:
    many = [str(i) for i in range(12)]
    assert named(many[:2]) == "0, 1"
    assert named(many) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert named(many[:3], 5, separator="; ") == "0; 1; 2 and 2 more"
