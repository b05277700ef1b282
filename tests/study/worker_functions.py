"""What tests have processes do; their module imports little: each new process imports it."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from joblib.externals.loky import process_executor

if TYPE_CHECKING:
    from dfl.study.run.study import Study

kept: list[bytearray] = []


def work(shared: str, item: int) -> str:
    """Be one of several items: the third kills its process, the others take their time."""
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return f"{shared} {item} {'torch' in sys.modules} {os.environ['OPENBLAS_NUM_THREADS']}"


def loaded(study: "Study", name: str) -> list[str]:
    """Tell what is loaded when a cell has been fitted."""
    from dfl.study.run.fitting import fit_cells
    from tests.study.study_examples import cell

    assert [outcome.cause for outcome in fit_cells(study, [cell(name)])] == [None]
    return [module for module in ("torch", "lightning", "matplotlib") if module in sys.modules]


def grow(shared: str, megabytes: int) -> int:
    """Keep memory, and let loky look at the process after each item, not once a second."""
    process_executor._MEMORY_LEAK_CHECK_DELAY = 0.0
    kept.append(bytearray(b"x") * (megabytes << 20))
    return os.getpid()


def sleep(file: Path, seconds: int) -> int:
    with file.open("a") as said:
        said.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return seconds
