"""Running cells in processes: one that dies takes no other with it; what is finished is kept."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import groupby
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_limits

from dfl.study.design.grid import Cell
from dfl.study.run.condition_features import ConditionFeatures
from dfl.study.run.fitting import Outcome, fit_cells
from dfl.study.run.inputs import StudyInput

__all__ = ["in_processes", "run_cells"]

_THREAD_LIMITS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_DIED: Final = "its process died, most likely for want of memory; give fewer jobs"

_study: tuple[StudyInput, dict[str, ConditionFeatures]] | None = None  # in a worker


def run_cells(
    cells: Sequence[Cell], study: StudyInput, *, jobs: int, done: Callable[[Outcome], None]
) -> None:
    """Fit cells in processes of one thread each, so that results do not depend on their number.

    Args:
        cells: What is to be done.
        study: What cells are fitted on.
        jobs: How many processes.
        done: Called with the outcome of each cell as it comes.
    """
    groups = [list(group) for _, group in groupby(cells, key=_shared)]
    while groups:
        lost = _run(groups, study, jobs=jobs, done=done)
        # a process that died took the pool with it; groups are begun in their order, so that it was
        # at one of the first: whose fault it was shows when each of their cells is alone
        _run_alone([cell for group in lost[:jobs] for cell in group], study, done=done)
        groups = lost[jobs:]


def _run_alone(
    cells: Sequence[Cell], study: StudyInput, *, done: Callable[[Outcome], None]
) -> None:
    while cells:
        lost = [cell for (cell,) in _run([[cell] for cell in cells], study, jobs=1, done=done)]
        if lost:
            done(Outcome(lost[0], _DIED))
        cells = lost[1:]


def _run(
    groups: Sequence[list[Cell]],
    study: StudyInput,
    *,
    jobs: int,
    done: Callable[[Outcome], None],
) -> list[list[Cell]]:
    """Run groups of cells; give those that were lost with a process, in their order."""
    finished: set[int] = set()
    with in_processes(min(jobs, len(groups)), _start_worker, (study,)) as pool:
        futures: dict[Future[list[Outcome]], int] = {}
        with suppress(BrokenProcessPool):  # what is not submitted is lost as well
            for place, group in enumerate(groups):
                futures[pool.submit(_fit_group, group)] = place
        for future in as_completed(futures):
            with suppress(BrokenProcessPool):
                for outcome in future.result():
                    done(outcome)
                finished.add(futures[future])
    return [group for place, group in enumerate(groups) if place not in finished]


@contextmanager
def in_processes(
    jobs: int, start: Callable[..., None], arguments: tuple[object, ...]
) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of fresh processes, of one thread each, that end with this one.

    Args:
        jobs: How many processes.
        start: Called once in each, with `arguments`.
        arguments: What it gets.
    """
    # what processes are forked from imports before it is told where this one has its modules from
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    own = dict.fromkeys(_THREAD_LIMITS, "1") | {"PYTHONPATH": path}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    pool = ProcessPoolExecutor(
        max(1, jobs), _context(), initializer=_begin, initargs=(start, arguments)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _context() -> BaseContext:
    """Take processes from one that has done the imports, where that is safe."""
    if sys.platform != "linux":  # frameworks of macOS do not survive a fork
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["dfl.study.run.fitting", "dfl.study.analysis.judge"])
    return context


def _begin(start: Callable[..., None], arguments: tuple[object, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))  # for what is loaded later
    threadpool_limits(1)  # the libraries that are there may come from a process with more
    start(*arguments)


def _end_with_parent() -> None:
    """Leave when the study is killed: a pool's processes would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _start_worker(study: StudyInput) -> None:
    global _study  # what a process of the pool keeps between groups
    _study = (
        study,
        {condition: ConditionFeatures(folders) for condition, folders in study.features.items()},
    )


def _fit_group(cells: list[Cell]) -> list[Outcome]:
    if _study is None:
        raise RuntimeError("a worker begins with _start_worker")
    return list(fit_cells(cells, *_study))


def _shared(cell: Cell) -> tuple[object, ...]:
    """Tell what cells of one group have in common: all but the head."""
    return cell.seed, cell.train_condition, cell.train_set, cell.features, cell.reduction, cell.grid
