"""Guessing how long the cells of a study take, from a few fits on random numbers."""

import time
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from dfl.study.design.grid import Cell
from dfl.study.run.fitting import split_rows
from dfl.study.run.inputs import StudyInput

_ROWS, _COLUMNS = 300, 256


def cell_seconds(cells: Sequence[Cell], study: StudyInput, dims: Mapping[str, int]) -> float:
    """Estimate the time of cells on one thread, to within a factor of two or three.

    Every reduction and head is fitted once on a small random matrix; the time is scaled in
    proportion to rows and columns.

    Args:
        cells: The cells.
        study: What they are fitted on.
        dims: Columns of every feature layer.

    Returns:
        Seconds.
    """
    if not cells:
        return 0.0
    rng = np.random.default_rng(0)
    features = rng.normal(size=(_ROWS, _COLUMNS)).astype(np.float32)
    label = np.arange(_ROWS) % 2
    needed = {cell.head for cell in cells}, {cell.reduction for cell in cells}
    head, reduction = (
        {
            name: sum(_seconds(p, features, label) for p in candidates)
            for name, candidates in table.items()
            if name in names
        }
        for names, table in zip(needed, (study.heads, study.reductions), strict=True)
    )
    rows = {
        (name, seed): len(split_rows(frame, training_set, "train"))
        for name, training_set in study.training_sets.items()
        for seed, frame in study.frames.items()
    }
    total = 0.0
    groups: set[tuple[object, ...]] = set()
    for cell in cells:
        count = rows[cell.train_set, cell.seed] / _ROWS
        columns = sum(dims[layer] for layer in cell.features) / _COLUMNS
        reduced = bool(study.reductions[cell.reduction])
        total += head[cell.head] * count * (1 if reduced else columns)
        group = (cell.features, cell.train_condition, cell.train_set, cell.seed, cell.reduction)
        if group not in groups:
            groups.add(group)
            total += reduction[cell.reduction] * count * columns
    return total


def _seconds(
    pipeline: Pipeline, features: npt.NDArray[np.float32], label: npt.NDArray[np.int64]
) -> float:
    """Time the second of two fits on one thread: the first one may import what it needs."""
    taken = 0.0
    try:
        with warnings.catch_warnings(), threadpool_limits(limits=1):
            warnings.simplefilter("ignore")
            for _ in range(2):
                start = time.perf_counter()
                clone(pipeline).fit(features, label)
                taken = time.perf_counter() - start
    except Exception:  # it fails again, and is reported, when its cell is fitted
        return 0.0
    return taken
