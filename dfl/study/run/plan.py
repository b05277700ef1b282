"""What a study has to do, counted before it begins, and about how long that takes."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from dfl.heads.estimators.provenance import fit_parameters
from dfl.processes import is_one_of_several
from dfl.study.design.grid import Cell
from dfl.study.run.baselines import Baselines
from dfl.study.run.cells import CellStore
from dfl.study.run.features import FeatureFolders
from dfl.study.run.study import Study
from dfl.types import FeatureLayer, backbone_of

_ROWS: Final = 300
_COLUMNS: Final = 256
_SPEC: Final = tuple(FeatureLayer(f"any.block{i}.cls", _COLUMNS // 2, "") for i in range(2))


@dataclass(frozen=True)
class StudyPlan:
    """The size of a study; as text, what a user reads before anything is done.

    Attributes:
        axes: How many training sets, training conditions and seeds there are, in words.
        cells: How many fits there are.
        cells_done: How many of them are there already.
        networks: How many networks are still to be fine-tuned; all of them where several processes
            were started, which do not wait for this one to read all images.
        images: How many distinct images there are.
        folders: How many conditions and backbones there are.
        draws: How many of the conditions are draws of training images.
        passes: Forward passes of an image through a backbone that all of the study takes.
        passes_done: How many of them were made before.
        passes_saved: How many more it would be if every cell made its own.
        processes: How many processes fit cells.
        seconds: Estimate of the time that is left; None where there is nothing to do.
        timed_on: The devices that the backbones were timed on, in words.
    """

    axes: str
    cells: int
    cells_done: int
    networks: int
    images: int
    folders: tuple[int, int]
    draws: int
    passes: int
    passes_done: int
    passes_saved: int
    processes: int
    seconds: float | None
    timed_on: str

    def __str__(self) -> str:
        conditions, backbones = self.folders
        lines = [f"cells: {self.cells} ({self.axes}), {self.cells_done} of them done before"]
        if self.networks:
            lines.append(
                f"networks to fine-tune: {self.networks}, whose time is not in the estimate"
            )
        drawn = f", {self.draws} of them draws," if self.draws else ""
        lines.append(
            f"forward passes: {self.passes} ({self.images} images x {conditions} conditions{drawn} "
            f"x {backbones} backbones), {self.passes_done} made before; "
            f"{self.passes_saved} saved against cells that each make their own"
        )
        if self.seconds is not None:
            lines.append(
                f"time left: about {duration(self.seconds)} on {self.processes} processes "
                f"(backbones timed on {self.timed_on}, without decoding)"
            )
        return "\n".join(lines)


def plan_study(
    cells: Sequence[Cell],
    study: Study,
    features: FeatureFolders,
    baselines: Baselines,
    *,
    processes: int,
    devices: int = 1,
) -> StudyPlan:
    """Count what there is to do.

    Args:
        cells: The heads on features.
        study: What they are made from.
        features: The features, made or not.
        baselines: Networks that are fine-tuned.
        processes: How many processes fit cells.
        devices: How many devices run the backbones, over all nodes.

    Returns:
        The plan.
    """

    def has_features(cell: Cell) -> bool:
        backbones = {backbone_of(layer) for layer in cell.features}
        seen = {*study.scored_conditions(cell), *study.learnt_conditions(cell)}
        return all(features.has(condition, name) for condition in seen for name in backbones)

    def needs(cell: Cell) -> int:
        learnt, scored = len(study.rows(cell, "train")), study.scored_rows(cell)
        images = study.frames[cell.seed]["path"].iloc[scored].nunique()
        others = max(0, images - learnt) if study.is_nested(cell) else images
        return learnt * len(study.learnt_conditions(cell)) + others * len(
            study.scored_conditions(cell)
        )

    # cells whose features are not there cannot be
    keys = {cell: study.key(cell) for cell in cells if has_features(cell)}
    there = CellStore(study.folder).usable(set(keys.values()))
    missing = [cell for cell in cells if keys.get(cell) not in there]
    needed, done, saved = forward_passes(
        cells,
        images=features.images,
        folders=features.pending,
        needs=needs,
    )
    left = sum(
        count * features.seconds_per_image(name)
        for (_, name), count in features.pending.items()
        if count
    )
    if features.device != "cpu":  # whose cores all processes of a machine share
        left /= devices
    left += cell_seconds(missing, study, features.dims) / processes
    return StudyPlan(
        axes=f"{len(study.training_sets)} training sets, {len(study.conditions)} training "
        f"conditions, {len(study.frames)} seeds",
        cells=len(cells),
        cells_done=len(cells) - len(missing),
        networks=len(baselines.cells if is_one_of_several() else baselines.missing()),
        images=features.images,
        folders=(len(features.paths), len(features.paths[study.first_condition])),
        draws=len({name for each in study.draws.values() for name in each} - set(study.conditions)),
        passes=needed,
        passes_done=done,
        passes_saved=saved,
        processes=processes,
        seconds=left if missing or done < needed else None,
        timed_on="the CPU" if features.device == "cpu" else f"{devices} {features.device} devices",
    )


def forward_passes(
    cells: Sequence[Cell],
    *,
    images: int,
    folders: Mapping[tuple[str, str], int],
    needs: Callable[[Cell], int],
) -> tuple[int, int, int]:
    """Count forward passes: needed, made before, and saved by the store.

    Args:
        cells: The cells.
        images: How many distinct images there are.
        folders: For every (condition, backbone) how many of the images are still to be seen.
        needs: How many passes a cell would make through each of its backbones.

    Returns:
        Passes needed in all, made before, and saved: what the cells would make, each of its own
        images under its own conditions through its own backbones, less those needed.
    """
    needed = images * len(folders)
    done = needed - sum(folders.values())
    alone = 0
    for cell in cells:
        backbones = {backbone_of(layer) for layer in cell.features}
        alone += needs(cell) * len(backbones)
    return needed, done, max(0, alone - needed)


def cell_seconds(cells: Sequence[Cell], study: Study, dims: Mapping[str, int]) -> float:
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
    total = 0.0
    groups: set[tuple[object, ...]] = set()
    for cell in cells:
        rows = len(study.rows(cell, "train")) * len(study.learnt_conditions(cell))
        count = rows / _ROWS
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
    kinds = np.where(np.arange(len(label)) // 2 % 2, "a", "b")
    known = dict.fromkeys(("generator", "family", "source", "dataset"), kinds)
    taken = 0.0
    try:
        with warnings.catch_warnings(), threadpool_limits(limits=1):
            warnings.simplefilter("ignore")
            for _ in range(2):
                start = time.perf_counter()
                asked = fit_parameters(pipeline, _SPEC, pd.DataFrame(known))
                clone(pipeline).fit(features, label, **asked)
                taken = time.perf_counter() - start
    except Exception:  # it fails again, and is reported, when its cell is fitted
        return 0.0
    return taken


def duration(seconds: float) -> str:
    """Say how long something takes, in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
