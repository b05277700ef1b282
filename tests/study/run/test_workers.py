"""What happens to cells in processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfl.errors import ConfigError, StudyError
from dfl.heads.estimators import lda
from dfl.processes import cores
from dfl.study.run import workers as workers_module
from dfl.study.run.cells import CellStore
from dfl.study.run.missing import run_missing
from dfl.study.run.workers import DIED, DaskWorkers, DeviceWorkers, LocalWorkers, choose_workers
from tests.study.study_examples import Dies, Tells, cell, example, pipeline
from tests.study.worker_functions import grow, loaded, work


@pytest.mark.slow
def test_run_missing__a_process_that_dies_takes_its_own_cell_alone(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    before = dict(os.environ)
    heads = {"lda": [lda()], "tells": [pipeline(Tells())], "dies": [pipeline(Dies())]}
    study = example(tmp_path, conditions=["none"], heads=heads)
    cells = [*(cell(name) for name in heads), cell("lda", train_set="beta")]
    with LocalWorkers(1) as workers:
        run = run_missing(cells, study, workers)
        assert dict(os.environ) == before
    assert {outcome.cell: outcome.cause for outcome in run.failures} == {
        cells[1]: "RuntimeError: in a process of 1 thread",
        cells[2]: "its process died, most likely for want of memory; give fewer jobs",
    }
    assert dict(os.environ) == before
    assert run.keys == {c: study.key(c) for c in (cells[0], cells[3])}
    assert run.fitted == 2
    assert CellStore(study.folder).finished() == set(run.keys.values())

    files = {file: file.stat().st_mtime_ns for file in study.folder.iterdir()}
    with LocalWorkers(1) as workers:
        again = run_missing(list(run.keys), study, workers)
    assert (again.fitted, again.failures, again.keys) == (0, [], run.keys)
    assert {file: file.stat().st_mtime_ns for file in study.folder.iterdir()} == files


@pytest.mark.slow
def test_run__only_what_kills_its_process_is_lost(tmp_path: Path) -> None:
    new, old = (tmp_path / f".shared.{n}-00000000" for n in range(2))
    for left in (new, old):  # by killed studies
        left.touch()
    os.utime(old, (0, 0))
    with LocalWorkers(2) as workers:
        found = dict(workers.run(work, range(6), "shared", folder=tmp_path))
        assert found == {n: None if n == 2 else f"shared {n} False 1" for n in range(6)}
        # the same processes serve again
        assert dict(workers.run(work, [7], "other", folder=tmp_path)) == {0: "other 7 False 1"}
    assert list(tmp_path.iterdir()) == [new]


def test_run__a_process_that_has_grown_goes_on(tmp_path: Path) -> None:
    """A new one would import everything again."""
    with LocalWorkers(1) as workers:
        pids = dict(workers.run(grow, [0, 400, 0], "shared", folder=tmp_path))
    assert len(set(pids.values())) == 1


def test_read__a_worker_waits_for_what_the_study_has_written(tmp_path: Path, monkeypatch) -> None:
    """On another machine it may be a minute before a file is seen that is there."""
    features = tmp_path / "features.json"
    with workers_module._written("shared", tmp_path / "cells", [features]) as file:
        monkeypatch.setattr(workers_module, "VISIBLE_S", 0.0)
        with pytest.raises(StudyError, match=r"features.json: a worker on .* does not see it; the"):
            workers_module._read(file)
        seen: list[Path] = []
        monkeypatch.setattr(workers_module, "appears", lambda path, **_: not seen.append(path))
        assert workers_module._read(file) == "shared"
    assert seen == [file, features]


@pytest.mark.slow
def test_run__a_cell_loads_no_torch(tmp_path: Path) -> None:
    study = example(tmp_path, conditions=["none"])
    with LocalWorkers(1) as workers:
        assert dict(workers.run(loaded, ["lda"], study, folder=study.folder)) == {0: []}


@pytest.mark.slow
def test_run__killed_it_leaves_no_process(tmp_path: Path) -> None:
    """One process works and one is idle when the one that started them is killed."""
    file = tmp_path / "pids"
    code = (
        "from pathlib import Path\n"
        "from dfl.study.run.workers import LocalWorkers\n"
        "from tests.study.worker_functions import sleep\n"
        f"file = Path({str(file)!r})\n"
        "with LocalWorkers(2) as workers:\n"
        "    list(workers.run(sleep, [0, 0, 300], file, folder=file.parent))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    wait_until(lambda: file.exists() and len(file.read_text().split()) == 3, 60)
    assert len(members(process.pid)) > 2
    process.kill()
    process.wait()
    wait_until(lambda: not members(process.pid), 30)


@pytest.mark.slow
def test_device_workers__one_item_a_device_and_a_process(tmp_path: Path) -> None:
    """Two at once; one that dies is tried again alone, and no other notices."""

    def work(folder: Path, item: int, *, device: int) -> tuple[int, int]:
        (folder / str(item)).touch()
        while item < 2 and not (folder / str(1 - item)).exists():
            time.sleep(0.01)
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid(), device

    with DeviceWorkers([4, 7]) as workers:
        found = dict(workers.run(work, range(4), tmp_path, folder=tmp_path / "shared"))
    assert {place for place, result in found.items() if result is None} == {2}
    assert len({found[place][0] for place in (0, 1, 3)}) == 3
    assert {found[0][1], found[1][1]} == {4, 7}


@pytest.mark.slow
def test_device_workers__end_what_is_under_way(tmp_path: Path) -> None:
    def work(folder: Path, item: int, *, device: int) -> int:
        (folder / f"{item}.pid").write_text(str(os.getpid()))
        time.sleep(300 * item)
        return item

    with DeviceWorkers([0, 1]) as workers:
        running = workers.run(work, [0, 1, 2], tmp_path, folder=tmp_path / "shared")
        assert next(running) == (0, 0)
        wait_until((tmp_path / "1.pid").exists, 30)
    assert not Path("/proc", (tmp_path / "1.pid").read_text()).exists()


def wait_until(happens, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


def members(session: int) -> list[int]:
    """List the processes of a session, those that wait to be buried apart."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = status.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it has just ended
        if int(own) == session and state != "Z":
            found.append(int(status.parent.name))
    return found


def test_choose_workers__one_for_each_core(monkeypatch) -> None:
    assert choose_workers("processes", None, None).count == cores()
    assert choose_workers("processes", None, 3).count == 3


@pytest.mark.parametrize(
    ("executor", "scheduler", "jobs", "message"),
    [
        ("processes", None, 0, "jobs: must be at least 1, got 0"),
        ("processes", "tcp://a:1", None, "executor processes, scheduler tcp://a:1: give"),
        ("dask", None, None, "executor dask, scheduler None: give --executor dask with"),
    ],
)
def test_choose_workers__mistakes(executor, scheduler, jobs, message) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_workers(executor, scheduler, jobs)


def test_dask_workers__not_installed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(StudyError, match=r"install it with: pip install 'dfl\[dask\]'"):
        DaskWorkers("tcp://127.0.0.1:1")


def test_died__says_what_to_do() -> None:
    assert "fewer jobs" in DIED
