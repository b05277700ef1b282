"""Fitting what is missing of a study, and showing how far it is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from dfl.features.store import FEATURES
from dfl.progress import progress
from dfl.study.design.grid import Cell
from dfl.study.run.baselines import Baselines
from dfl.study.run.cells import CellStore, Outcome
from dfl.study.run.fitting import fit_cells
from dfl.study.run.study import Study
from dfl.study.run.workers import DIED, Workers


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
    cells: Sequence[Cell], study: Study, workers: Workers, baselines: Baselines | None = None
) -> CellRun:
    """Make the cells that are not there yet, or cannot be read; show how far it is.

    Args:
        cells: The heads on features.
        study: What they are made from.
        workers: What fits them.
        baselines: Networks that are fine-tuned on this machine.

    Returns:
        What became of all of them.
    """
    start = time.monotonic()
    keys = {cell: study.key(cell) for cell in cells}
    store = CellStore(study.folder)
    there = store.usable(keys.values(), warn=True)
    missing = [cell for cell in cells if keys[cell] not in there]
    made: list[Outcome] = []
    failures: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        (made if outcome.cause is None else failures).append(outcome)

    with progress("fit cells", len(cells), done=len(cells) - len(missing), unit="cell") as bar:

        def done(outcome: Outcome) -> None:
            note(outcome)
            if failures:
                bar.set_postfix_str(f"{len(failures)} failed", refresh=False)
            bar.update()

        if missing:
            run_cells(missing, study, workers, done=done)
    if baselines is not None:
        keys |= baselines.keys
        for outcome in baselines.run():
            note(outcome)
    store.wait_for(keys[outcome.cell] for outcome in made)
    failed = {outcome.cell for outcome in failures}
    return CellRun(
        {cell: key for cell, key in keys.items() if cell not in failed},
        failures,
        len(made),
        time.monotonic() - start,
    )


def run_cells(
    cells: Sequence[Cell], study: Study, workers: Workers, *, done: Callable[[Outcome], None]
) -> None:
    """Fit cells in processes.

    Args:
        cells: What is to be done.
        study: What cells are fitted on.
        workers: The processes.
        done: Called with the outcome of each cell as it comes.
    """
    groups = [list(group) for _, group in groupby(cells, key=_shared_by)]
    folders = (folder for each in study.features.values() for folder in each.folders.values())
    reads = [folder / FEATURES.document for folder in folders]
    while groups:
        lost: list[Cell] = []
        for place, outcomes in workers.run(
            fit_cells, groups, study, folder=study.folder, reads=reads
        ):
            if outcomes is None and len(groups[place]) > 1:
                lost += groups[place]  # whose fault it was shows when each is a group of its own
                continue
            for outcome in outcomes or [Outcome(groups[place][0], DIED)]:
                done(outcome)
        groups = [[cell] for cell in lost]


def _shared_by(cell: Cell) -> tuple[object, ...]:
    """Tell what cells of one group have in common: all but the head."""
    return cell.seed, cell.train_condition, cell.train_set, cell.features, cell.reduction, cell.grid
