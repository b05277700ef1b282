"""Real processes that run the entry, forked from one that has done the slow imports.

Importing torch and Lightning takes longer than what most tests do with them; a process that is
started for a test inherits both, and nothing else, from a server that does `preloaded` alone.
"""

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from tests.conftest import REPOSITORY
from tests.runs import free_port, job_of_torchrun

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])
Prepare = Callable[[], None]


def serve() -> None:
    """Start the server where there is none; it finds what it imports in the folder it starts in."""
    with contextlib.chdir(REPOSITORY):
        forkserver.ensure_running()


@dataclass(frozen=True)
class Ended:
    """What became of a process: its exit code, and what it wrote to stdout and stderr."""

    code: int | None
    said: str


def start(
    args: list[str],
    log: Path,
    *,
    prepare: Prepare | None = None,
    environment: Mapping[str, str] | None = None,
) -> ForkServerProcess:
    """Start ``dfl ARGS`` in the present folder, on one thread.

    Args:
        args: The command line.
        log: Where its output goes.
        prepare: A function of a module that changes the process before it runs the command.
        environment: Added to the present environment.
    """
    serve()
    variables = dict(os.environ) | dict(environment or {})
    method = multiprocessing.get_start_method()
    process = CONTEXT.Process(target=_run, args=(args, log, prepare, variables, Path.cwd(), method))
    process.start()
    return process


def run_ranks(
    args: list[str], count: int, *, prepare: Prepare | None = None, timeout_s: float = 120
) -> list[Ended]:
    """Run ``dfl ARGS`` as torchrun runs it on one machine: so many processes, each with its rank.

    Where one of them fails the others are stopped, though not before they could say why.
    """
    port = free_port()
    logs = [Path(f"rank-{rank}.log").absolute() for rank in range(count)]
    processes = [
        start(
            args,
            log,
            prepare=prepare,
            environment=job_of_torchrun(rank, count, port),
        )
        for rank, log in enumerate(logs)
    ]
    deadline = time.monotonic() + timeout_s
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        if any(process.exitcode for process in processes):
            deadline = min(deadline, time.monotonic() + 5)
        time.sleep(0.02)
    ended = []
    for process, log in zip(processes, logs, strict=True):
        process.kill()
        process.join()
        ended.append(Ended(process.exitcode, log.read_text()))
        log.unlink()
    return ended


def _run(
    args: list[str],
    log: Path,
    prepare: Prepare | None,
    environment: Mapping[str, str],
    folder: Path,
    method: str,
) -> None:
    """Be the process: what it says goes to the log, as a shell would redirect it."""
    os.chdir(folder)
    multiprocessing.set_start_method(method, force=True)  # for its own processes, as anywhere else
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(output, descriptor)
    from dfl.cli import main

    if prepare is not None:
        prepare()
    main(args)
