import errno
import json
import os
from pathlib import Path

import pytest

from dfl.artifacts import Kind, Store, key_of
from dfl.errors import ConfigError
from dfl.recipe import Recipe

CUP = Kind(
    name="cup",
    error=ConfigError,
    document="cup.json",
    format=2,
    files=("*.txt",),
    loose=("notes.md",),
    make="make one with `dfl cup`",
    remake="make it again",
    same="this cup",
    other="another cup",
)
MADE: Recipe = {"format": 2, "fingerprint": "ab"}


def _make(folder: Path, *, overwrite: bool = False, content: str = "tea") -> Path:
    with CUP.making(folder, MADE | {"drink": content}, overwrite=overwrite) as partial:
        (partial / "a.txt").write_text(content)
        (partial / "notes.md").write_text("hot")
    return folder


def test_making__locks_that_do_not_hold_between_machines(tmp_path: Path, monkeypatch) -> None:
    """Whoever ends first has made it; the other one says what has happened, in one line."""
    monkeypatch.setattr("dfl.folders.take", lambda *_: True)

    def make_slowly() -> None:
        with CUP.making(tmp_path / "c", MADE) as partial:
            (partial / "a.txt").write_text("half")
            _make(tmp_path / "c")
            (partial / "b.txt").write_text("the other half")

    with pytest.raises(ConfigError, match=r"c: another run makes it as well, .* run the same comm"):
        make_slowly()
    assert CUP.find(tmp_path / "c", "ab") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_check_replaceable__what_nfs_keeps_for_readers_is_nobodys(tmp_path: Path) -> None:
    folder = _make(tmp_path / "c")
    (folder / ".nfs000000000123abc").touch()
    _make(folder, overwrite=True, content="milk")
    assert CUP.read(folder)["drink"] == "milk"


def test_making__says_what_made_it_and_what_is_in_it(tmp_path: Path) -> None:
    description = CUP.read(_make(tmp_path / "in" / "c"))
    assert list(description) == ["format", "fingerprint", "drink", "checksums", "checksum"]
    assert list(description["checksums"]) == ["a.txt"]
    assert CUP.find(tmp_path / "in" / "c", "ab") == description
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["c"]


def test_making__an_error_leaves_what_was_there(tmp_path: Path) -> None:
    before = CUP.read(_make(tmp_path / "c"))
    with pytest.raises(ZeroDivisionError), CUP.making(tmp_path / "c", MADE, overwrite=True):
        _ = 1 / 0
    assert CUP.read(tmp_path / "c") == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_making__replaces_only_when_asked_and_only_its_own(tmp_path: Path) -> None:
    _make(tmp_path / "c")
    with pytest.raises(ConfigError, match=r"c already holds this cup; name another, or give --ov"):
        _make(tmp_path / "c")
    with (
        pytest.raises(ConfigError, match="c already holds another cup; name another"),
        CUP.making(tmp_path / "c", {"format": 2, "fingerprint": "cd"}),
    ):
        pass
    _make(tmp_path / "c", overwrite=True, content="milk")
    assert CUP.read(tmp_path / "c")["drink"] == "milk"
    (tmp_path / "c" / "holiday.jpg").touch()
    with pytest.raises(ConfigError, match=r"holiday\.jpg is no part of a cup; move it away"):
        _make(tmp_path / "c", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; name a folder for the cup"):
        _make(tmp_path / "file", overwrite=True)


def test_making__full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"c: the disk is full .* 3 GiB have to be free") as caught,
        CUP.making(tmp_path / "c", MADE, room=3 * 2**30),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: (c / "cup.json").unlink(), "not a finished cup, it has no cup.json; make one"),
        (lambda c: (c / "cup.json").write_text("{"), r"cup.json: damaged \(.*; make it again"),
        (lambda c: (c / "cup.json").write_text("[]"), "cup.json: format None, this version read"),
        (lambda c: _edit(c, format=1), "cup.json: format 1, this version reads 2; make it again"),
        (lambda c: _edit(c, drink="wine"), "cup.json: damaged or edited; make it again"),
    ],
)
def test_read__damage_is_one_line(tmp_path: Path, damage, message: str, caplog) -> None:
    damage(_make(tmp_path / "c"))
    with pytest.raises(ConfigError, match=message) as caught:
        CUP.read(tmp_path / "c")
    assert "\n" not in str(caught.value)
    assert CUP.find(tmp_path / "c", "ab") is None
    assert not CUP.is_of(tmp_path / "c", "ab")


def _edit(folder: Path, **changes: object) -> None:
    file = folder / "cup.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_read__nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="c: no such cup; make one with `dfl cup`"):
        CUP.read(tmp_path / "c")


def test_find__a_flipped_bit_counts_as_missing_and_is_named(tmp_path: Path, caplog) -> None:
    _make(tmp_path / "c")
    assert CUP.find(tmp_path / "c", "cd") is None
    (tmp_path / "c" / "notes.md").write_text("cold")
    assert CUP.find(tmp_path / "c", "ab") is not None
    assert not caplog.records
    (tmp_path / "c" / "a.txt").write_text("teb")
    assert CUP.find(tmp_path / "c", "ab") is None
    assert caplog.messages == [f"{tmp_path}/c/a.txt: damaged; it is made anew"]
    assert CUP.is_of(tmp_path / "c", "ab")


def test_note__changes_the_description_alone(tmp_path: Path) -> None:
    description = CUP.read(_make(tmp_path / "c"))
    CUP.note(tmp_path / "c", description | {"drink": "none"})
    assert CUP.read(tmp_path / "c")["drink"] == "none"
    assert CUP.find(tmp_path / "c", "ab") is not None


def test_store__by_key(tmp_path: Path, caplog) -> None:
    store = Store(CUP, tmp_path / "cups")
    one, two = key_of({"drink": "tea"}), key_of({"drink": "milk"})
    assert store.keys() == set()
    assert store.get(one) is None
    for key in (one, two, one):
        with store.making(key, {"drink": key}) as partial:
            (partial / "a.txt").write_text(key)
    assert store.keys() == {one, two}
    found = store.get(one)
    assert found is not None
    assert found["drink"] == found["fingerprint"] == one
    (store.path(two) / "a.txt").unlink()
    assert store.get(two) is None
    assert caplog.messages == [f"{tmp_path}/cups/{two}/a.txt: damaged; it is made anew"]
    store.path(one).rename(store.path("0" * 32))  # a folder is what its description says
    assert store.get("0" * 32) is None
