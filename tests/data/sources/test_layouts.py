"""Sides of a layout by the folders of images, whether these are in a folder or in a tar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfl.data.sources.layouts import find_sides
from dfl.data.sources.words import LONE_WORDS, SPLIT_WORDS, split_in, split_word
from dfl.errors import DataError
from dfl.types import FAKE, REAL

FOLDERS = st.sampled_from(
    [
        *("real", "Fake", "0_real", "1_fake", "ai", "human", "AI_SD", "train", "val", "test"),
        *("progan", "adm", "cat", "0", "1", "images", "baroque", "AI_SD_baroque", "fakeV2"),
    ]
)
PATHS = st.lists(
    st.lists(FOLDERS, max_size=4).map(lambda parts: "/".join((*parts, "x.png"))),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(PATHS)
def test_find_sides__each_image_once_or_all_refused(paths: list[str]) -> None:
    try:
        tree = find_sides(paths, "top")
    except DataError:
        return
    found = [image for side in tree.sides for image in side.images] + tree.loose
    assert sorted(found) == sorted(paths)
    assert not (tree.sides and tree.loose)
    for side in tree.sides:
        assert side.label in (REAL, FAKE)
        top = "/".join((*side.parts, side.name))
        assert all(image.startswith(f"{top}/") for image in side.images)
        assert all("/".join((top, *inner)) == place for place, inner in side.folders().items())


@given(PATHS)
def test_find_sides__in_any_order(paths: list[str]) -> None:
    def found(paths: list[str]) -> object:
        try:
            tree = find_sides(paths, "top")
        except DataError:
            return None
        return tree.sides, sorted(tree.loose), tree.reasons

    assert found(paths) == found(paths[::-1])


@given(
    st.lists(st.sampled_from([*SPLIT_WORDS, "real", "2017", "data", "progan"]), max_size=3),
    st.sampled_from(["_", "-", " ", "."]),
)
def test_split_word__is_stricter_than_split_in(words: list[str], between: str) -> None:
    name = between.join(words)
    known = set(SPLIT_WORDS) - (LONE_WORDS if "progan" in words else set())
    said = {SPLIT_WORDS[word] for word in words if word in known}
    assert split_in(name) == (said.pop() if len(said) == 1 else "")
    assert split_word(name) == ("" if "progan" in words else split_in(name))
    assert split_word(name.upper()) == split_word(name)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["real/a.png", "Real/b.png"], "top: Real and real are of two layouts"),
        (["s/real/a.png", "s/fake/a.png", "s/ai/a.png"], "top/s: ai and fake and real are of two"),
        (["real/x/Fake/a.png"], "top/real/x/Fake: a side's folder inside the side 'real'"),
        (["real/a.png", "fake/b.png", "c.png"], r"\(fake\) and images beside them \(c.png\)"),
    ],
)
def test_find_sides__what_is_ambiguous_is_refused_with_a_way_out(
    paths: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        find_sides(paths, "top")
    assert "known layouts: 0_real/1_fake" in str(caught.value)
