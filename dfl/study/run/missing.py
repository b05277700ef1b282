"""Fitting what is missing of a study, and showing how far it is."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dfl.progress import progress
from dfl.study.design.grid import Cell
from dfl.study.run.cells import CellStore
from dfl.study.run.condition_features import ConditionFeatures
from dfl.study.run.fitting import Outcome
from dfl.study.run.inputs import StudyInput
from dfl.study.run.keys import CellKeys
from dfl.study.run.workers import run_cells

__all__ = ["CellRun", "run_missing"]


@dataclass(frozen=True)
class CellRun:
    """What became of the cells of a study.

    Attributes:
        keys: The keys of the cells that are there.
        failures: The others, with their cause.
        fitted: How many were fitted now.
        seconds: How long that took.
    """

    keys: dict[Cell, str]
    failures: list[Outcome]
    fitted: int
    seconds: float


def run_missing(
    cells: Sequence[Cell],
    study: StudyInput,
    conditions: Mapping[str, ConditionFeatures],
    *,
    jobs: int,
) -> CellRun:
    """Fit the cells that are not there yet, or cannot be read; show how far it is.

    Args:
        cells: All cells of the study.
        study: What they are fitted on.
        conditions: The features by condition.
        jobs: How many processes.

    Returns:
        What became of them.
    """
    start = time.monotonic()
    key_of = CellKeys(study, conditions)
    keys = {cell: key_of(cell) for cell in cells}
    there = CellStore(study.folder).usable(keys.values(), warn=True)
    missing = [cell for cell in cells if keys[cell] not in there]
    failures: list[Outcome] = []
    with progress("fit cells", len(cells), done=len(cells) - len(missing), unit="cell") as bar:

        def done(outcome: Outcome) -> None:
            if outcome.cause is not None:
                failures.append(outcome)
                bar.set_postfix_str(f"{len(failures)} failed", refresh=False)
            bar.update()

        if missing:
            run_cells(missing, study, jobs=jobs, done=done)
    failed = {outcome.cell for outcome in failures}
    return CellRun(
        {cell: key for cell, key in keys.items() if cell not in failed},
        failures,
        len(missing) - len(failures),
        time.monotonic() - start,
    )
