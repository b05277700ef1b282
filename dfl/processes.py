"""How a run is spread over processes: which of them this one is, and what they tell each other.

Nothing here imports torch before several processes are at work.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# torchrun tells all of them but the last, Lightning's own launcher the second, srun the last, to
# which a shell in a job of one task answers 0 whatever Lightning has launched in it
_RANKS: Final = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
_SIZES: Final = ("WORLD_SIZE", "SLURM_NTASKS")
_LOOK_S: Final = 1.0
ASKS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""The signals by which a scheduler asks a run to end."""


def launched_rank() -> int:
    """Give the number of this process among those that were launched together, 0 if it is alone.

    It is known before Lightning has started, from what torchrun, srun or Lightning's own launcher
    says in the environment.
    """
    rank = next((int(os.environ[name]) for name in _RANKS if os.environ.get(name)), 0)
    if rank == 0 and not os.environ.get("RANK"):  # Lightning's own launcher, on another machine
        return int(os.environ.get("NODE_RANK") or 0)
    return rank


def is_one_of_several() -> bool:
    """Say whether torchrun or srun launched other processes together with this one."""
    return any(os.environ.get(name, "1") not in ("", "1") for name in _SIZES)


def has_launcher() -> bool:
    """Say whether this process was started by one that stays: torchrun, or Lightning's own."""
    return "LOCAL_RANK" in os.environ


def cores() -> int:
    """Count the cores that this process may use, which are not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_threads(default: int) -> int:
    """Say how many threads this process may use of its machine's.

    Args:
        default: What torch takes. Beside torchrun, which allows each process one where nothing
            else is said, and in a task of SLURM, whose cores Lightning divides once more by the
            number of tasks, that leaves cores idle.
    """
    given = os.environ.get("SLURM_CPUS_PER_TASK")
    if given and os.environ.get("SLURM_NTASKS", "1") != "1":
        return min(int(given), cores())
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
        return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return default


def gathered(mine: T) -> list[T]:
    """Give every process what each of them has, by rank; all have to call this.

    Args:
        mine: What this process has; pickled for the others.
    """
    group = _group()
    if group is None:
        return [mine]
    parts = [mine] * group.get_world_size()
    group.all_gather_object(parts, mine)
    return parts


def add_up(values: "Tensor") -> None:
    """Add up a tensor over all processes, in place; all have to call this."""
    group = _group()
    if group is not None:
        group.all_reduce(values)


def are_several() -> bool:
    """Say whether several processes are at work together now."""
    return _group() is not None


def end_group() -> None:
    """End the work of all processes together: from here on each of them is alone.

    Whoever waits for others that are gone waits for ever on a GPU.
    """
    group = _group()
    if group is not None:
        group.barrier()
        group.destroy_process_group()


def end_with_parent(parent: int) -> None:
    """End this process as soon as the one that started it is gone, however that one ended.

    Args:
        parent: Its number; the parent may be gone by now.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_worker_with_parent(worker: int) -> None:
    """End a process of a data loader as soon as the one that started it is gone, as it begins.

    Torch has it look for another parent than it had when its own code began; where the parent was
    killed just before, it would wait for ever.

    Args:
        worker: Its number, as torch gives it to such functions.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def ended_when_asked(
    asks: Sequence[signal.Signals] = ASKS, *, patience_s: float = 20.0
) -> Iterator[None]:
    """Let the signals by which schedulers end a run interrupt the block as Ctrl-C does.

    Args:
        asks: The signals.
        patience_s: Seconds after which the process ends in any case, as while it waits for another
            one in a library that lets no signal through; schedulers wait for 30 before they kill.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    over = threading.Event()

    def watch() -> None:
        while told := os.read(read, 1):
            if told[0] in asks and not over.wait(patience_s):
                os._exit(128 + told[0])
        os.close(read)

    before = {number: signal.signal(number, end_when_asked) for number in asks}
    told_before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(told_before)
        os.close(write)
        for number, handler in before.items():
            signal.signal(number, handler)


def _forget_signals() -> None:
    """Let a forked process not tell its parent of the signals that it gets itself."""
    signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_signals)


def end_when_asked(number: int, frame: FrameType | None) -> None:
    """Handle a signal as Ctrl-C; what then ends in order is not interrupted by the next one.

    Args:
        number: The signal.
        frame: Where it was met.

    Raises:
        KeyboardInterrupt: With the signal's name.
    """
    signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGCHLD"):  # torch's handler raises where those that decode end as well
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    raise KeyboardInterrupt(signal.Signals(number).name)


def what_ended(err: BaseException | None) -> signal.Signals | None:
    """Find the signal that a program was interrupted by.

    Args:
        err: What was raised in the end, by libraries that clean up on the way, too.

    Returns:
        The signal; None where it was none.
    """
    while err is not None and not isinstance(err, KeyboardInterrupt):
        err = err.__context__
    if err is None:
        return None
    return signal.Signals[str(err)] if str(err) else signal.SIGINT


def _group() -> Any:  # noqa: ANN401  # torch's module has functions only where it was built so
    """Give torch's process group of several processes; None where this one works alone."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    group = cast(Any, torch).distributed
    several = group.is_available() and group.is_initialized() and group.get_world_size() > 1
    return group if several else None
