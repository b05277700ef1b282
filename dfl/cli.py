"""The entry: Lightning's fit, validate, test and predict, and the commands of `dfl.commands`."""

import logging
import os
import sys
import time
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from signal import Signals
from typing import Final, NoReturn

from dfl import __version__
from dfl.app.dispatch import LIGHTNING, help_of_all, run
from dfl.errors import DflError, one_line
from dfl.processes import (
    ASKS,
    end_with_parent,
    ended_when_asked,
    has_launcher,
    launched_rank,
    what_ended,
)

_GOES_ON: Final = {
    "reconstruct": "the same command goes on where it was",
    "extract": "the same command goes on where it was",
    "study": "the same command goes on where it was",
    "fit": "--ckpt_path last goes on after the last epoch that was kept",
}
"""What to do after an interrupted command, where it has kept something."""

_FIRST_ONE_S: Final = 4.0
"""How long the other processes leave it to the first one to say what is wrong, and to end."""


def main(args: Sequence[str] | None = None) -> None:
    """Run one sub-command.

    Args:
        args: The command line without the program's name; ``sys.argv`` if left out.

    Raises:
        SystemExit: With code 2, after one line on stderr, if a user's mistake ends the run; with
            128 and the number of a signal that ends it.
    """
    argv = list(sys.argv[1:] if args is None else args)
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(help_of_all())
        return
    if name == "--version":
        print(f"dfl {__version__}")
        return
    if has_launcher():
        end_with_parent(os.getppid())
    # what is wrong with an image, its decoding says
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # in a job of SLURM Lightning keeps a training on the other one
    asks = ASKS[:1] if name in LIGHTNING else ASKS
    try:
        with _log_shown(), ended_when_asked(asks):
            run(argv)
    except BaseException as err:
        if (signal := what_ended(err)) is not None:
            _stop(name, signal)
        if not isinstance(err, Exception):
            raise
        message = _message(name, err)
        if message is None or os.environ.get("DFL_DEBUG"):
            raise
        _fail(name, err, message)


def _message(name: str, err: Exception) -> str | None:
    """Say what a user did wrong; None for what is no mistake of theirs, which keeps its trace."""
    if isinstance(err, DflError):
        return str(err)
    if isinstance(err, ArgumentError):
        from dfl.app.wording import in_plain_words

        return f"{in_plain_words(str(err))}; `dfl {name} --help` lists what there is"
    if type(err).__name__ == "MisconfigurationException":  # known by name: Lightning stays out
        return str(err)
    if isinstance(err, ModuleNotFoundError) and not str(err.name).startswith("dfl"):
        return str(err)
    if isinstance(err, RuntimeError) and "Early stopping conditioned on metric" in str(err):
        return str(err)
    if isinstance(err, RuntimeError) and "DataLoader worker" in str(err):
        return (
            "a process that decodes images was ended from outside, for want of memory perhaps; run "
            "the same command again, with fewer --data.num_workers or smaller --data.batch_size"
        )
    from dfl.app.wording import of_libraries

    return of_libraries(err)


def _fail(name: str, err: Exception, message: str) -> None:
    rank = launched_rank()
    where = f" in process {rank}" if rank else ""
    if rank:
        # what every process meets is the first one's to say, with which the launcher ends the rest;
        # an unreadable image meets only the one that reads it
        time.sleep(_FIRST_ONE_S)
    if rank == 0 or not isinstance(err, ArgumentError):
        sys.stderr.write(f"dfl {name}: error{where}: {one_line(message)}\n")
    raise SystemExit(2)


def _stop(name: str, signal: Signals) -> NoReturn:
    """End as a program does that a signal has ended, after one line of the first process."""
    if launched_rank() == 0:
        go_on = _GOES_ON.get(name, "the same command begins anew")
        sys.stderr.write(f"dfl {name}: ended by {signal.name}; {go_on}\n")
    raise SystemExit(128 + signal)


@contextmanager
def _log_shown() -> Iterator[None]:
    """Show what the package reports, such as the counts of images, one line each on stderr."""
    log = logging.getLogger("dfl")
    # what no handler takes, Python shows itself where it is a warning: once a process
    handler = logging.NullHandler() if launched_rank() else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    # a command that runs other commands, as the demo does, shows each line once
    level = log.level
    if not log.handlers:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
