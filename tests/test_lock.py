import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dfl import lock
from dfl.lock import locked

HOLD = (
    "import sys, time; from pathlib import Path; from dfl.lock import locked\n"
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


def test_locked__one_at_a_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lock, "_POLL_S", 0.001)
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(10):
            with locked(tmp_path / "f"):
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


@pytest.mark.parametrize("missing", [True, False])
def test_locked__where_there_are_no_locks(
    tmp_path: Path, monkeypatch, caplog, missing: bool
) -> None:
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(descriptor: int, flags: int) -> None:
            raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock, "fcntl", None if missing else NoLocks)
    with locked(tmp_path / "f"):
        assert "this file system has no locks" in caplog.text


def test_locked__another_error_is_raised(tmp_path: Path, monkeypatch) -> None:
    class Broken:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(descriptor: int, flags: int) -> None:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(lock, "fcntl", Broken)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / "f"):
        pass


HOLD_AND_FORK = (
    "import os, sys, time; from pathlib import Path; from dfl.lock import locked\n"
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
        "import os, sys; from pathlib import Path; from dfl.lock import locked\n"
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
