import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from dfl.folders import locked, making_folder, recover_folder, replace_folder


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


HOLD = (
    "import sys, time; from pathlib import Path; from dfl.folders import locked\n"
    "with locked(Path(sys.argv[1]), note='abc'):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


class GiveUpError(Exception):
    pass


def _holder(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_locked__goes_with_a_killed_process(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    holder = _holder(tmp_path / "f")
    notes: list[str] = []

    def kill(note: str) -> None:
        notes.append(note)
        os.kill(holder.pid, signal.SIGKILL)

    with holder, locked(tmp_path / "f", on_wait=kill):
        assert holder.wait() == -signal.SIGKILL
    assert notes[0] == "abc"
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/f: another process is making it; waiting for that"
    ]
    assert list(tmp_path.iterdir()) == []


def test_locked__may_give_up(tmp_path: Path) -> None:
    def give_up(note: str) -> None:
        raise GiveUpError(note)

    with _holder(tmp_path / "f") as holder:
        with pytest.raises(GiveUpError, match="abc"), locked(tmp_path / "f", on_wait=give_up):
            pass
        holder.kill()


def test_locked__one_at_a_time(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(10):
            with locked(tmp_path / "f", poll_s=0.001):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_locked__where_there_are_no_locks(tmp_path: Path, monkeypatch, caplog, number: int) -> None:
    _let_flock_fail(monkeypatch, number)
    with locked(tmp_path / "f"):
        assert f"this file system has no locks ([Errno {number}]" in caplog.text


def test_locked__a_lock_that_another_machine_has_removed(tmp_path: Path, monkeypatch) -> None:
    """Its name was there a moment ago; the next look makes it anew."""
    acquire, stale = FileLock.acquire, [2]

    def acquired(self: FileLock, **options: float) -> object:
        if stale[0]:
            stale[0] -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return acquire(self, **options)

    monkeypatch.setattr(FileLock, "acquire", acquired)
    with locked(tmp_path / "f", poll_s=0.001):
        assert (tmp_path / ".f.lock").exists()
    assert stale == [0]


def test_locked__another_error_is_raised(tmp_path: Path, monkeypatch) -> None:
    _let_flock_fail(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / "f"):
        pass


def _let_flock_fail(monkeypatch, number: int) -> None:
    def flock(descriptor: int, flags: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)


HOLD_AND_FORK = (
    "import os, sys, time; from pathlib import Path; from dfl.folders import locked\n"
    "with locked(Path(sys.argv[1]), note='abc'):\n"
    "    child = os.fork()\n"
    "    if child: print(child, flush=True)\n"
    "    time.sleep(60)\n"
)


def test_locked__is_not_kept_by_a_worker_of_a_killed_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_AND_FORK, str(tmp_path / "f")]

    def kill(note: str) -> None:
        holder.kill()
        holder.wait()
        if attempts:
            raise GiveUpError(note)
        attempts.append(note)

    attempts: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        try:
            with locked(tmp_path / "f", on_wait=kill):
                os.kill(worker, 0)  # it lives on
        finally:
            os.kill(worker, signal.SIGKILL)
    assert attempts == ["abc"]


def test_locked__forked_process_that_leaves_the_block_removes_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from dfl.folders import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        os.waitpid(child, 0)\n"
        "        print(os.listdir(Path(sys.argv[1]).parent))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['.f.lock']\n"
