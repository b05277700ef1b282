import errno
import os
from pathlib import Path

import pytest

from dfl.files import checksum_of, drop_leftovers, writing


def test_writing__replaces_at_once(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    for text in ("one", "two"):
        with writing(file) as partial:
            assert partial.suffix == ".txt"
            partial.write_text(text)
        assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]


def test_writing__failure_keeps_the_old(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), writing(file) as partial:
        partial.write_text(f"half {1 / 0}")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_checksum_of__known_value(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert checksum_of(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_writing__is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []
    fsync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append("sync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (seen.append("rename"), rename(a, b)))
    with writing(tmp_path / "a.txt") as partial:
        partial.write_text("a")
    assert seen == ["sync", "rename", "sync"]
    seen.clear()
    with writing(tmp_path / "a.txt", synced=False) as partial:
        partial.write_text("b")
    assert seen == ["rename"]
    seen.clear()
    with writing(tmp_path / "b") as partial:
        (partial / "deep").mkdir(parents=True)
        (partial / "deep" / "c.txt").touch()
    assert seen == ["sync"] * 3 + ["rename", "sync"]


def test_writing__full_disk_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        writing(tmp_path / "a.txt"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_leftovers__of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    old = [tmp_path / f".config.{pid}-0a1b2c3d.yaml" for pid in (1, 22)]
    others = [
        tmp_path / name
        for name in ("config.yaml", ".config.yaml", ".other.1-00.yaml", ".config.before-fix.yaml")
    ]
    young = tmp_path / ".config.333-0a1b2c3d.yaml"
    for file in [*old, *others, young]:
        file.write_text("half")
    for file in [*old, *others]:
        os.utime(file, (0, 0))
    drop_leftovers(tmp_path / "config.yaml")
    assert set(tmp_path.iterdir()) == {*others, young}
