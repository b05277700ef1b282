import logging
from pathlib import Path

import pytest

from dfl.data import Folder, Tree
from dfl.data.checks.unreadable import (
    DamagedImages,
    drop_unreadable,
    find_unreadable,
    read_reasons,
    read_report,
    say_unreadable,
)
from dfl.errors import DataError
from tests.data.sources.image_files import damaged_jpeg


def test_drop_unreadable__lists_each_with_its_reason(
    image_copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (image_copy / "alpha/0_real/000.png").write_bytes(b"")
    (image_copy / "beta/1_fake/001.png").write_text("text")
    manifest = Tree(image_copy).scan()
    report = tmp_path / "unreadable.csv"
    kept = drop_unreadable(manifest, report)
    assert len(kept) == len(manifest) - 2
    assert list(kept.frame.index) == list(range(len(kept)))
    assert read_report(report) == {"alpha/0_real/000.png", "beta/1_fake/001.png"}
    assert "is an empty file" in report.read_text()
    assert caplog.messages == [f"left out 2 unreadable images, listed in {report}"]
    assert caplog.records[0].levelno == logging.WARNING


def test_drop_unreadable__nothing_to_report(image_root: Path, tmp_path: Path) -> None:
    report = tmp_path / "unreadable.csv"
    report.write_text("path,reason\nold,one\n")
    manifest = Tree(image_root).scan()
    assert find_unreadable(manifest) == {}
    assert drop_unreadable(manifest, report) is manifest
    assert not report.exists()
    assert read_report(report) == set()


def test_drop_unreadable__nothing_left(tmp_path: Path) -> None:
    (tmp_path / "set/real").mkdir(parents=True)
    (tmp_path / "set/real/a.png").touch()
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        drop_unreadable(Tree(tmp_path).scan(), tmp_path / "unreadable.csv")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def spoil(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).write_text(LFS)


def test_drop_unreadable__a_class_that_loses_much_stops(image_copy: Path, tmp_path: Path) -> None:
    """Of 12 images one may be lost, as any single one; of fake ones of beta it is three."""
    report = tmp_path / "unreadable.csv"
    spoil(image_copy, [f"beta/1_fake/{n:03}.png" for n in range(3)])
    spoil(image_copy, ["alpha/0_real/000.png"])
    manifest = Tree(image_copy).scan()
    with pytest.raises(
        DataError,
        match=r"3 of the 12 fake images of beta cannot be read, more than 5% \(max_unreadable\)"
        r".* \(4 times: is a Git LFS pointer, .*`git lfs pull`\); restore them, they are listed in",
    ) as caught:
        drop_unreadable(manifest, report)
    assert "\n" not in str(caught.value)
    assert len(read_report(report)) == 4
    assert len(drop_unreadable(manifest, report, max_unreadable=0.25)) == len(manifest) - 4


def test_drop_unreadable__a_class_over_all_datasets(image_copy: Path, tmp_path: Path) -> None:
    spoil(image_copy, [f"{name}/1_fake/000.png" for name in ("alpha", "beta")])
    with pytest.raises(DataError, match=r"2 of the 24 fake images cannot be read, more than 5%"):
        drop_unreadable(Tree(image_copy).scan(), tmp_path / "unreadable.csv")


def test_drop_unreadable__of_unknown_class(image_copy: Path, tmp_path: Path) -> None:
    spoil(image_copy, [f"beta/1_fake/{n:03}.png" for n in range(9)])
    kept = drop_unreadable(Folder(image_copy).scan(), tmp_path / "unreadable.csv")
    assert len(kept) == 48 - 9


def test_say_unreadable__names_ten_and_lists_all(image_copy: Path, tmp_path: Path) -> None:
    report = tmp_path / "unreadable.csv"
    names = [f"beta/1_fake/{n:03}.png" for n in range(12)]
    spoil(image_copy, names)
    (image_copy / names[3]).write_text("<html>404</html>")
    (image_copy / names[4]).write_text("<html>403</html>")
    line = say_unreadable(Tree(image_copy).scan(), report)
    assert line is not None
    assert line.startswith(f"12 of 48 images cannot be read: {', '.join(names[:10])} and 2 more (")
    assert "(10 times: is a Git LFS pointer" in line
    assert "(2 times: is a web page, no image; download it again)" in line
    assert line.endswith(f"all are listed in {report}, and on_unreadable: skip leaves them out")
    assert list(read_reasons(report)) == names


@pytest.mark.parametrize("count", [0, 1])
def test_say_unreadable__of_one_all_is_said(image_copy: Path, tmp_path: Path, count: int) -> None:
    spoil(image_copy, ["beta/1_fake/000.png"][:count])
    assert say_unreadable(Tree(image_copy).scan(), tmp_path / "unreadable.csv") is None
    assert not (tmp_path / "unreadable.csv").exists()


def test_find_unreadable__damage_by_choice(image_copy: Path) -> None:
    damaged_jpeg(image_copy / "beta/1_fake/000.png")
    manifest = Tree(image_copy).scan()
    assert find_unreadable(manifest) == {}
    (reason,) = find_unreadable(manifest, "refuse").values()
    assert "is damaged (Corrupt JPEG data" in reason


def test_damaged_images__table_over_several_runs(tmp_path: Path, caplog) -> None:
    report = tmp_path / "damaged.csv"
    first, second, third = DamagedImages(), DamagedImages(), DamagedImages()
    first.note(["a", "b", "c"], ["", "x, y", "z"], report)
    first.write(report, [first])
    assert read_reasons(report) == {"b": "x, y", "c": "z"}
    # the next run meets other images, and one that was mended
    second.note(["c", "d"], ["", "w"], report)
    third.note(["e"], ["v"], report)
    second.write(report, [second, third])
    assert read_reasons(report) == {"b": "x, y", "d": "w", "e": "v"}
    second.write(report, [second, third])
    assert [message.partition(",")[0][-3:] for message in caplog.messages] == [": 2", ": 3"]
    last = DamagedImages()
    last.note(["b", "d", "e"], ["", "", ""], report)
    last.write(report, [last])
    assert not report.exists()
