import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dfl.processes import (
    add_up,
    cores,
    end_group,
    gathered,
    has_launcher,
    is_one_of_several,
    launched_rank,
    own_threads,
)

TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "TORCHELASTIC_RUN_ID": "x"}
NAMES = [*TORCHRUN, "SLURM_PROCID", "SLURM_NTASKS", "NODE_RANK"]


@pytest.mark.parametrize(
    ("environment", "rank", "several", "launcher"),
    [
        ({}, 0, False, False),
        (TORCHRUN, 5, True, True),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, 3, True, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, 0, False, False),
        # a shell in a job, in which Lightning has started processes itself
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "2", "WORLD_SIZE": "4"}, 2, True, True),
        ({"RANK": "", "WORLD_SIZE": ""}, 0, False, False),
        # the first process that Lightning's launcher starts on a second machine
        ({"NODE_RANK": "1"}, 1, False, False),
    ],
)
def test_launched(
    environment: dict[str, str],
    rank: int,
    several: bool,
    launcher: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_rank() == rank
    assert is_one_of_several() == several
    assert has_launcher() == launcher


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, 3),
        (TORCHRUN | {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "4"}, 2),
        (TORCHRUN | {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "16"}, 1),
        (TORCHRUN | {"OMP_NUM_THREADS": "5", "LOCAL_WORLD_SIZE": "4"}, 3),
        ({"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "6", "OMP_NUM_THREADS": "1"}, 6),
        ({"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "64"}, 8),
        ({"SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": "6"}, 3),
    ],
)
def test_own_threads(
    environment: dict[str, str], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*NAMES, "SLURM_CPUS_PER_TASK", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("dfl.processes.cores", lambda: 8)
    assert own_threads(default=3) == threads


def test_cores__those_that_the_process_may_use() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_alone__has_what_it_has() -> None:
    values = torch.ones(2)
    add_up(values)
    end_group()
    assert values.tolist() == [1, 1]
    assert gathered("mine") == ["mine"]


def test_end_with_parent__whose_end_it_sees(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    child = "import os, time; from dfl.processes import end_with_parent; " + (
        f"end_with_parent(os.getppid()); open({str(file)!r}, 'w').write(str(os.getpid())); "
        "time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); "
        f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(file)!r}), True)]; "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", parent], check=False, timeout=60)
    deadline = time.monotonic() + 10
    while _is_alive(int(file.read_text() or 0)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(int(file.read_text()))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there to ask for its exit code


def test_ended_when_asked__a_library_that_lets_no_signal_through(tmp_path: Path) -> None:
    """As where a process waits for another one; what it has forked is not to end it."""
    code = (
        "import ctypes, os, signal, sys, time\n"
        "from dfl.processes import ended_when_asked\n"
        "with ended_when_asked(patience_s=0.5):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n"
        "        print('child', flush=True)\n"
        "        time.sleep(60)\n"
        "    time.sleep(0.2)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    time.sleep(1)\n"
        "    print('waits', flush=True)\n"
        "    mutex, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)\n"
        "    c.pthread_mutex_lock(mutex), c.pthread_mutex_lock(mutex)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as ran:
        assert ran.stdout is not None
        assert [ran.stdout.readline() for _ in range(2)] == ["child\n", "waits\n"]
        time.sleep(0.1)
        ran.send_signal(signal.SIGTERM)
        assert ran.wait(timeout=5) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_end_worker_with_parent__that_was_killed_before_it_began(tmp_path: Path) -> None:
    """The worker begins a second after its parent has ended."""
    code = f"""
import multiprocessing, os, time
from pathlib import Path
from dfl.processes import end_worker_with_parent

def work():
    Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
    time.sleep(1)
    end_worker_with_parent(0)
    time.sleep(60)

multiprocessing.get_context("fork").Process(target=work).start()
while not Path({str(tmp_path / "pid")!r}).exists():
    time.sleep(0.01)
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], timeout=20)
    worker = Path("/proc", (tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while worker.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.exists()
