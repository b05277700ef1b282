"""What tests have processes do; their module imports little, so that it shows who loads torch."""

import os
import signal
import sys
import time
from pathlib import Path

from dfl.study.run.fitting import fit_cells
from dfl.study.run.study import Study
from tests.study.study_examples import cell

kept: list[bytearray] = []


def work(shared: str, item: int) -> str:
    """Be one of several items: the third kills its process, the others take their time."""
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return f"{shared} {item} {'torch' in sys.modules} {os.environ['OPENBLAS_NUM_THREADS']}"


def loaded(study: Study, name: str) -> list[str]:
    """Tell what is loaded when a cell has been fitted."""
    assert [outcome.cause for outcome in fit_cells(study, [cell(name)])] == [None]
    return [module for module in ("torch", "lightning", "matplotlib") if module in sys.modules]


def grow(shared: str, megabytes: int) -> int:
    """Keep memory, and take the second that loky lets pass between two looks at a process."""
    kept.append(bytearray(b"x") * (megabytes << 20))
    time.sleep(1.1)
    return os.getpid()


def sleep(file: Path, seconds: int) -> int:
    with file.open("a") as said:
        said.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return seconds
