import logging
from pathlib import Path

import pytest

from dfl.data import Tree
from dfl.data.sources.unreadable import drop_unreadable, find_unreadable, read_report
from dfl.errors import DataError


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
