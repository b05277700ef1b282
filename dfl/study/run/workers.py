"""Work in processes of one thread each: one that dies loses its own item, and no other."""

import os
import socket
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any, Concatenate, Final, Literal, Self, TypeVar, cast

import joblib
from joblib.externals.loky import ProcessPoolExecutor, get_reusable_executor, process_executor
from threadpoolctl import threadpool_limits

from dfl.errors import ConfigError, StudyError
from dfl.files import VISIBLE_S, appears, fresh, own_token
from dfl.processes import cores, end_with_parent

DIED: Final = "its process died, most likely for want of memory; give fewer jobs"
"""What became of an item without result, in one line."""

_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
_IDLE_S: Final = 300.0
_SHARED: Final = ".shared."
_ABANDONED_S: Final = 86400.0

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(ABC):
    """Processes that work on many items, whose results do not depend on how many processes.

    What is begun is ended by leaving the context.
    """

    deaths: tuple[type[Exception], ...]
    """What the future of an item that was lost with its process raises."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many items are worked on at once, at least 1."""

    @abstractmethod
    def executor(self, items: int) -> Executor:
        """Give what so many items can be submitted to."""

    @abstractmethod
    def close(self) -> None:
        """End what was begun."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(
        self,
        function: Callable[Concatenate[Shared, Item, ...], Result],
        items: Sequence[Item],
        shared: Shared,
        *,
        folder: Path,
        reads: Sequence[Path] = (),
    ) -> Iterator[tuple[int, Result | None]]:
        """Call a function on every item, in processes.

        Args:
            function: Called as ``function(shared, item)``; what it returns is not None.
            items: The items.
            shared: What all calls share; a process reads it once.
            folder: Where that is written meanwhile; all processes see the folder.
            reads: Files that are there, and that the calls read: a process waits until it sees
                them, which on another machine may be a minute later.

        Yields:
            The place of an item and its result, as they come; None where the process died while
            only this item was in work.
        """
        with _written(shared, folder, reads) as file, warnings.catch_warnings():
            # loky replaces a process that has waited for long
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
            calls = [partial(_call, function, file, item) for item in items]
            left = list(range(len(items)))
            while left:
                lost = yield from self._round(calls, left)
                if len(left) == len(lost) == 1:
                    yield lost[0], None
                    return
                # one process that dies may take the others with it; items are begun in their order,
                # so that it was at one of the first: whose fault it was shows when each is alone
                for place in lost[: self.count]:
                    if (yield from self._round(calls, [place])):
                        yield place, None
                left = lost[self.count :]

    def _round(
        self, calls: Sequence[Callable[[], Result]], places: Sequence[int]
    ) -> Generator[tuple[int, Result], None, list[int]]:
        """Work on some items; return the places of those that were lost with a process."""
        executor = self.executor(len(places))
        futures: dict[Future[Result], int] = {}
        with suppress(*self.deaths):  # what is not submitted is lost as well
            for place in places:
                futures[executor.submit(calls[place])] = place
        finished: set[int] = set()
        for future in as_completed(futures):
            try:
                result = future.result()
            except self.deaths:
                continue
            except CancelledError as err:
                raise StudyError(
                    "the scheduler is gone; what is finished is kept, so run the same command again"
                ) from err
            finished.add(futures[future])
            yield futures[future], result
        return [place for place in places if place not in finished]


class LocalWorkers(Workers):
    """Processes of this machine, which end with this one, however it ends.

    Args:
        jobs: How many.

    Raises:
        ConfigError: If it is none.
    """

    deaths = (BrokenProcessPool,)

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ConfigError(f"jobs: must be at least 1, got {jobs}")
        self._jobs = jobs
        self._executor: Executor | None = None

    @property
    def count(self) -> int:
        """How many items are worked on at once."""
        return self._jobs

    def executor(self, items: int) -> Executor:
        """Give no more processes than there are items; those that are there serve again."""
        self._executor = get_reusable_executor(
            max_workers=min(self._jobs, items),
            timeout=_IDLE_S,
            initializer=_begin,
            initargs=(os.getpid(),),
            env=_ONE_THREAD,
        )
        return self._executor

    def close(self) -> None:
        """End the processes, whatever they are at."""
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)  # type: ignore[call-arg]  # loky's own


class DeviceWorkers(Workers):
    """Processes of this machine that have a device each, as many at once as there are devices.

    The function is called as ``function(shared, item, device=number)``. Every item gets a process
    of its own: the memory of the device is free again when it ends, and one that dies takes no
    other with it.

    Args:
        devices: The numbers of the devices, at least one.
    """

    deaths = (BrokenProcessPool,)

    def __init__(self, devices: Sequence[int]) -> None:
        self._devices = tuple(devices)
        self._executor = _ProcessEach(self._devices)

    @property
    def count(self) -> int:
        """How many devices there are."""
        return len(self._devices)

    def executor(self, items: int) -> Executor:
        """Give what starts a process for each item."""
        return self._executor

    def close(self) -> None:
        """End the processes, whatever they are at."""
        self._executor.end()


class _ProcessEach(ThreadPoolExecutor):
    """Threads, each of which has its calls done by new processes, and tells them a free device."""

    def __init__(self, devices: Sequence[int]) -> None:
        super().__init__(len(devices))
        self._free: SimpleQueue[int] = SimpleQueue()
        for device in devices:
            self._free.put(device)
        self._under_way: set[ProcessPoolExecutor] = set()
        self._forks = Lock()
        self._ends = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
        return super().submit(self._in_process, partial(fn, *args, **kwargs))

    def end(self) -> None:
        self._ends = True
        self.shutdown(wait=False, cancel_futures=True)
        for process in tuple(self._under_way):
            process.shutdown(kill_workers=True)
        self.shutdown()

    def _in_process(self, call: Callable[..., Any]) -> Any:  # noqa: ANN401
        device = self._free.get()
        process = ProcessPoolExecutor(
            1, initializer=_begin, initargs=(os.getpid(),), env=_ONE_THREAD
        )
        self._under_way.add(process)
        try:
            if self._ends:
                raise CancelledError
            with self._forks:  # filelock refuses a fork while another thread is at one
                future = process.submit(call, device=device)
            return future.result()
        finally:
            self._under_way.discard(process)
            process.shutdown(kill_workers=True)
            self._free.put(device)


class DaskWorkers(Workers):
    """The workers of a Dask cluster, which see the same folders as this process.

    A worker that dies has its item done by another one; an item that takes several workers with
    it is given up.

    Args:
        scheduler: Address of the scheduler, as ``tcp://10.0.0.1:8786``, or the file that it was
            told to write (``--scheduler-file``).
        timeout_s: Seconds after which it counts as gone.

    Raises:
        StudyError: If Dask is not installed, or the scheduler does not answer.
    """

    def __init__(self, scheduler: str, *, timeout_s: float = 30.0) -> None:
        try:
            import distributed
        except ImportError as err:
            raise StudyError(
                f"executor dask: {err}; install it with: pip install 'dfl[dask]'"
            ) from err
        self.deaths = (distributed.KilledWorker,)
        connect: Any = distributed.Client  # half of its methods have no types
        place = "scheduler_file" if scheduler.endswith(".json") else "address"
        try:
            self._client = connect(**{place: scheduler}, timeout=timeout_s, set_as_default=False)
        except (OSError, ValueError) as err:
            raise StudyError(f"scheduler {scheduler}: no Dask scheduler answers: {err}") from err

    @property
    def count(self) -> int:
        """How many threads the workers have that are there now."""
        return int(max(1, sum(self._client.nthreads().values())))

    def executor(self, items: int) -> Executor:
        """Give the cluster, which takes items before its first worker is there."""
        return cast(Executor, self._client.get_executor(pure=False))

    def close(self) -> None:
        """Leave the cluster; workers begin no further item."""
        self._client.close()


def choose_workers(
    executor: Literal["processes", "dask"], scheduler: str | None, jobs: int | None
) -> Workers:
    """Give the workers that a user asks for.

    Args:
        executor: Processes of this machine, or Dask's workers.
        scheduler: Address or file of Dask's scheduler.
        jobs: How many processes of this machine; one for each core by default.

    Raises:
        ConfigError: If scheduler and executor do not go together, or there is no job.
        StudyError: If there is no Dask, or no such scheduler.
    """
    if (scheduler is None) != (executor == "processes"):
        raise ConfigError(
            f"executor {executor}, scheduler {scheduler}: give --executor dask with the address "
            "of its scheduler, or neither"
        )
    if scheduler is not None:
        return DaskWorkers(scheduler)
    return LocalWorkers(cores() if jobs is None else jobs)


@contextmanager
def _written(shared: object, folder: Path, reads: Sequence[Path]) -> Iterator[Path]:
    """Write what all calls share, for as long as they last."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_SHARED}*"):  # by a study that was killed
        with suppress(OSError):  # another one may be faster
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()
    file = folder.absolute() / f"{_SHARED}{own_token()}"
    try:
        # as loky pickles calls: what a parser makes of an optimizer has functions without a name
        whole = joblib.wrap_non_picklable_objects(shared, keep_wrapper=False)
        joblib.dump((_versions(), [str(each.absolute()) for each in reads], whole), file)
        yield file
    finally:
        file.unlink(missing_ok=True)


def _call(
    function: Callable[Concatenate[Shared, Item, ...], Result],
    file: Path,
    item: Item,
    **place: int,
) -> Result:
    _use_one_thread()
    return function(cast(Shared, _read(file)), item, **place)


@lru_cache(maxsize=1)
def _read(file: Path) -> object:
    _wait_for(file)
    asked, reads, shared = fresh(lambda: joblib.load(file))
    if asked != (own := _versions()):
        raise StudyError(f"a worker has {own}, the study {asked}; start it in the same environment")
    for each in reads:
        _wait_for(Path(each))
    return shared


def _wait_for(file: Path) -> None:
    if not appears(file, patience_s=VISIBLE_S):
        raise StudyError(
            f"{file}: a worker on {socket.gethostname()} does not see it; the folders of the study "
            "and of its features have to be on a file system that all machines see, under the same "
            "path"
        )


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("dfl", "scikit-learn", "numpy"))


@lru_cache(maxsize=1)
def _use_one_thread() -> None:
    """Limit a process that may have begun with more: Dask's, where a user starts it otherwise."""
    os.environ.update(_ONE_THREAD)  # for what is loaded later
    threadpool_limits(1)


def _begin(parent: int) -> None:
    """Make this process of a pool end with its parent alone.

    When the study is killed it would finish its item, and wait for another.
    """
    # loky replaces a process that has grown by 300 MB, as features that are read from a map make
    # it: each new one imports torch and sklearn again. There is no public way to say no to that.
    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
    end_with_parent(parent)
