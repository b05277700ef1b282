"""A small Dask cluster on this machine: a scheduler and workers, each a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

HERE = ("--host=127.0.0.1", "--no-dashboard")


@dataclass(frozen=True)
class Cluster:
    """What was started.

    Attributes:
        address: Address of the scheduler.
        scheduler: Its process.
        workers: The processes of the workers.
    """

    address: str
    scheduler: "subprocess.Popen[bytes]"
    workers: list["subprocess.Popen[bytes]"]


@contextmanager
def cluster(folder: Path, *, restarts: bool = False, failures: int = 3) -> Iterator[Cluster]:
    """Start a scheduler and two workers of one thread on the loopback; end them whatever happens.

    Args:
        folder: The working folder of all; their logs go there, too.
        restarts: Whether a worker that dies is started again.
        failures: How many workers an item may take with it before it is given up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    nanny = "--nanny" if restarts else "--no-nanny"
    with ExitStack() as stack:
        scheduler = _role(folder, "scheduler", f"--port={port}", failures=failures)
        found = Cluster(address, stack.enter_context(scheduler), [])
        _wait_for(port)
        for name in ("one", "two"):
            worker = _role(folder, "worker", address, "--nthreads=1", nanny, f"--name={name}")
            found.workers.append(stack.enter_context(worker))
        yield found


def _wait_for(port: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)


@contextmanager
def _role(
    folder: Path, role: str, *args: str, failures: int = 3
) -> Iterator["subprocess.Popen[bytes]"]:
    own = {
        "PYTHONPATH": str(REPOSITORY),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(failures),
    }
    with (folder / f"{role}.log").open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", role, *args, *HERE],
            cwd=folder,
            env=os.environ | own,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()  # a worker that is started again ends with what starts it
        try:
            process.wait(30)
        finally:
            process.kill()
