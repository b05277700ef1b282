"""The entry: Lightning's fit, validate, test and predict, and the commands of `dfl.commands`."""

import logging
import os
import sys
import time
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from dfl import __version__
from dfl.app.dispatch import help_of_all, run
from dfl.errors import DflError, one_line
from dfl.processes import end_with_parent, has_launcher, launched_rank

_FIRST_ONE_S: Final = 2.0
"""How long the other processes leave it to the first one to say what is wrong."""


def main(args: Sequence[str] | None = None) -> None:
    """Run one sub-command.

    Args:
        args: The command line without the program's name; ``sys.argv`` if left out.

    Raises:
        SystemExit: With code 2, after one line on stderr, if a user's mistake ends the run.
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
    try:
        with _log_shown():
            run(argv)
    except Exception as err:
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
