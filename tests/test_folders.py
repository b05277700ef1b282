from pathlib import Path

import pytest

from dfl.folders import making_folder, recover_folder, replace_folder


def test_making_folder__takes_its_place_as_a_whole(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with making_folder(tmp_path / "in" / "f") as partial:
            (partial / name).touch()
            assert not (tmp_path / "in" / "f" / name).exists()
        assert [path.name for path in (tmp_path / "in").rglob("*")] == ["f", name]


def test_making_folder__failure_keeps_the_old(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(ZeroDivisionError), making_folder(tmp_path / "f") as partial:
        (partial / "half").write_text(f"{1 / 0}")
    assert [path.name for path in tmp_path.rglob("*")] == ["f"]


def test_making_folder__removes_what_killed_ones_left_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / ".f.new.a1b2c3_d"
    others = {tmp_path / name for name in (".f.new.short", ".f.new.A1B2C3_D", ".g.new.a1b2c3_d")}
    for folder in (left, *others):
        folder.mkdir()
    with making_folder(tmp_path / "f"):
        assert not left.exists()
    assert set(tmp_path.iterdir()) == {*others, tmp_path / "f"}


def test_replace_folder__old_one_is_gone(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").touch()
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_replace_folder__failure_puts_the_old_one_back(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.txt").touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "nothing", tmp_path / "old")
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "a.txt"]


def _kill_between_renames(tmp_path: Path, monkeypatch) -> None:
    """Stop as SIGKILL would: the old folder is away, the new one not yet there."""
    for name in ("f", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").touch()
    rename, calls = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise SystemExit
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(SystemExit):
            replace_folder(tmp_path / "new", tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_recover_folder__puts_back_what_was_there(tmp_path: Path, monkeypatch) -> None:
    _kill_between_renames(tmp_path, monkeypatch)
    recover_folder(tmp_path / "f")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "new"]
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["f.txt"]
    recover_folder(tmp_path / "f")
    recover_folder(tmp_path / "nowhere" / "f")


def test_recover_folder__removes_what_has_been_replaced(tmp_path: Path, monkeypatch) -> None:
    _kill_between_renames(tmp_path, monkeypatch)
    (tmp_path / "new").replace(tmp_path / "f")
    (tmp_path / ".f.gone.1-0a1b2c3d").mkdir()
    recover_folder(tmp_path / "f")
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "new.txt"]


def test_recover_folder__leaves_another_folder_of_a_like_name_alone(tmp_path: Path) -> None:
    """Work on a folder called ``f.old`` has names that begin like what is left of ``f``."""
    (tmp_path / "f").mkdir()
    shards, lock = tmp_path / ".f.old.0123456789ab", tmp_path / ".f.old.lock"
    shards.mkdir()
    lock.touch()
    recover_folder(tmp_path / "f")
    (tmp_path / "f").rmdir()
    recover_folder(tmp_path / "f")
    assert set(tmp_path.iterdir()) == {shards, lock}
