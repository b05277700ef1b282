import errno
import os
from pathlib import Path

import pytest

from dfl.files import appears, checksum_of, drop_leftovers, rename, writing


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


# File systems that several machines share


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many more times NFS finds that what it knew of a file is stale."""
    left = [0]
    for name in ("open", "replace"):
        called = getattr(Path, name)

        def call(self: Path, *args: object, called=called, **kwargs: object) -> object:
            if left[0]:
                left[0] -= 1
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return called(self, *args, **kwargs)

        monkeypatch.setattr(Path, name, call)
    monkeypatch.setattr("dfl.files._PAUSES_S", (0.0, 0.0, 0.0))
    return left


def test_checksum_of__a_stale_file_is_read_again(tmp_path: Path, stale: list[int]) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = checksum_of(tmp_path / "a")
    stale[0] = 3
    assert checksum_of(tmp_path / "a") == expected
    stale[0] = 4
    with pytest.raises(OSError, match="Stale file handle"):
        checksum_of(tmp_path / "a")


def test_writing__a_stale_folder_is_asked_again(tmp_path: Path, stale: list[int]) -> None:
    with writing(tmp_path / "a") as partial:
        partial.write_text("new")
        stale[0] = 2
    assert (tmp_path / "a").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_rename__an_answer_that_was_lost(tmp_path: Path, monkeypatch) -> None:
    """NFS renames, hears nothing, asks again, and is told that there is no such file."""
    replace = Path.replace

    def twice(self: Path, target: Path) -> Path:
        replace(self, target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", twice)
    for is_folder in (False, True):
        source, target = tmp_path / "a", tmp_path / f"b{is_folder}"
        source.mkdir() if is_folder else source.touch()
        rename(source, target)
        assert list(tmp_path.glob("a")) == []
        assert target.exists()
    monkeypatch.setattr(Path, "replace", lambda self, target: replace(tmp_path / "gone", target))
    source.touch()
    with pytest.raises(FileNotFoundError):
        rename(source, target)


def test_appears__a_file_that_another_machine_has_written(tmp_path: Path, monkeypatch) -> None:
    """NFS remembers that there was none, until the folder is listed."""
    file = tmp_path / "sub" / "a"
    file.parent.mkdir()
    file.touch()
    listed: list[Path] = []
    is_file, iterdir = Path.is_file, Path.iterdir

    def list_folder(self: Path) -> object:
        listed.append(self)
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", list_folder)
    monkeypatch.setattr(Path, "is_file", lambda self: is_file(self) and len(listed) >= 4)
    assert not appears(file)
    assert appears(file, patience_s=5, poll_s=0.01)
    assert listed == [tmp_path, file.parent] * 2
