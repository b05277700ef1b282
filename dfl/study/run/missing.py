"""Fitting what is missing of a study, and showing how far it is."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from dfl.progress import progress
from dfl.study.design.grid import Cell
from dfl.study.run.cells import CellStore
from dfl.study.run.condition_features import ConditionFeatures
from dfl.study.run.fitting import Outcome, fit_cells
from dfl.study.run.inputs import StudyInput
from dfl.study.run.keys import CellKeys
from dfl.study.run.workers import DIED, Workers

_Shared = tuple[StudyInput, Mapping[str, ConditionFeatures]]


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
    workers: Workers,
) -> CellRun:
    """Fit the cells that are not there yet, or cannot be read; show how far it is.

    Args:
        cells: All cells of the study.
        study: What they are fitted on.
        conditions: The features by condition.
        workers: What fits them.

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
            run_cells(missing, study, workers, done=done)
    failed = {outcome.cell for outcome in failures}
    return CellRun(
        {cell: key for cell, key in keys.items() if cell not in failed},
        failures,
        len(missing) - len(failures),
        time.monotonic() - start,
    )


def run_cells(
    cells: Sequence[Cell], study: StudyInput, workers: Workers, *, done: Callable[[Outcome], None]
) -> None:
    """Fit cells in processes.

    Args:
        cells: What is to be done.
        study: What cells are fitted on.
        workers: The processes.
        done: Called with the outcome of each cell as it comes.
    """
    groups = [list(group) for _, group in groupby(cells, key=_shared_by)]
    # opened anew in each process, which keeps them open
    unopened = {name: ConditionFeatures(folders) for name, folders in study.features.items()}
    shared = study, unopened
    while groups:
        lost: list[Cell] = []
        for place, outcomes in workers.run(_fit_group, groups, shared, folder=study.folder):
            if outcomes is None and len(groups[place]) > 1:
                lost += groups[place]  # whose fault it was shows when each is a group of its own
                continue
            for outcome in outcomes or [Outcome(groups[place][0], DIED)]:
                done(outcome)
        groups = [[cell] for cell in lost]


def _fit_group(shared: _Shared, cells: list[Cell]) -> list[Outcome]:
    return list(fit_cells(cells, *shared))


def _shared_by(cell: Cell) -> tuple[object, ...]:
    """Tell what cells of one group have in common: all but the head."""
    return cell.seed, cell.train_condition, cell.train_set, cell.features, cell.reduction, cell.grid
