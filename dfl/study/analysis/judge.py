"""From scores to numbers: every metric of every cell, with intervals; comparisons are paired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.errors import StudyError
from dfl.evaluation import (
    METRICS,
    calibrated,
    group_weights,
    image_sets,
    known_rows,
    percentile_interval,
    unique_images,
    weighted_metrics,
)
from dfl.study.design.grid import Cell
from dfl.study.run.cells import CellStore, Scores
from dfl.study.run.fitting import validation_sets
from dfl.study.run.study import Study
from dfl.study.run.workers import DIED, Workers
from dfl.types import FAKE, REAL

AXES: Final = (
    "grid",
    "features",
    "reduction",
    "head",
    "train_set",
    "train_condition",
    "test_condition",
    "seed",
)
"""The columns that name a row's cell and the condition it was tested under."""

Values = npt.NDArray[np.float64]
Metrics = dict[str, Values]
TestSet = tuple[str, str, npt.NDArray[np.int64], npt.NDArray[np.uint8]]
_Judged = tuple[list[dict[str, object]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Results:
    """The numbers of all cells.

    Attributes:
        table: Tidy rows: `AXES`, ``split``, ``scope``, ``name``, ``n_real``, ``n_fake``, each of
            ``METRICS`` with its ``_low`` and ``_high`` (95 %; nan on validation, and for a
            metric that has no interval).
        replicates: For each row of the table that is of the test split, in order, the primary
            metric of every bootstrap replicate, shape ``(rows, B)``, float32.
    """

    table: pd.DataFrame
    replicates: npt.NDArray[np.float32]


def cell_axes(cell: Cell) -> dict[str, object]:
    """Give a cell's place in the grid, as the tables' columns have it."""
    return {
        "grid": cell.grid,
        "features": "+".join(cell.features),
        "reduction": cell.reduction,
        "head": cell.head,
        "train_set": cell.train_set,
        "train_condition": cell.train_condition,
        "seed": cell.seed,
    }


class Judge:
    """Turns the scores of cells into metrics; the same bootstrap weights serve all of them.

    The weight of an image follows from its group alone (see `group_weights`), so that two cells
    are always compared on the same replicates of the images, whatever their test sets.

    Args:
        study: What the cells were fitted on.
        metric: The primary metric, whose replicates are kept.
        replicates: How many.
    """

    def __init__(self, study: Study, *, metric: str, replicates: int) -> None:
        self.study = study
        self.metric = metric
        self.replicates = replicates
        self._sets: dict[tuple[object, ...], list[TestSet]] = {}

    def __call__(
        self, cell: Cell, scores: Scores
    ) -> tuple[list[dict[str, object]], npt.NDArray[np.float32]]:
        """Judge a cell.

        Args:
            cell: The cell.
            scores: Its scores.

        Returns:
            Rows of the results table, and the replicates of the primary metric for those of the
            test split, shape ``(rows, B)``.
        """
        rows: list[dict[str, object]] = []
        kept: list[Values] = []
        for (condition, split, scope, name), values in self.values(cell, scores).items():
            place = cell_axes(cell) | {"test_condition": condition}
            rows.append(
                {axis: place[axis] for axis in AXES}
                | {"split": split, "scope": scope, "name": name}
                | _numbers(values)
            )
            if split == "test":
                kept.append(values[self.metric][1:])
        return rows, np.stack(kept).astype(np.float32)

    def values(self, cell: Cell, scores: Scores) -> dict[tuple[str, str, str, str], Metrics]:
        """Compute every metric of a cell, in every replicate.

        Args:
            cell: The cell.
            scores: Its scores.

        Returns:
            By test condition, split, scope and name: by metric, the value and then those of the
            replicates, shape ``(1 + B,)``, on validation the value alone; and the counts
            ``n_real`` and ``n_fake``.
        """
        frame, scored = self.study.frames[cell.seed], self.study.scored_rows(cell)
        label = frame["label"].to_numpy(dtype=np.int64)[scored]
        threshold, scaling = self.study.operating_point(cell, scores)
        found: dict[tuple[str, str, str, str], Metrics] = {}
        for condition in self.study.conditions[cell.train_condition]:
            prob = calibrated(scores[condition], scaling)
            for split in ("val", "test"):
                sets: dict[tuple[str, str], Metrics] = {}
                for scope, name, at, weights in self._test_sets(cell, split):
                    sets[scope, name] = weighted_metrics(
                        scores[condition][at],
                        label[at],
                        weights,
                        val_threshold=threshold,
                        prob=prob[at],
                    ) | _counts(label[at])
                sets |= self._summaries(sets, cell, split)
                found |= {(condition, split, *key): values for key, values in sets.items()}
        return found

    def decisions(self, cell: Cell, scores: Scores) -> pd.DataFrame:
        """Give the test rows of a cell with its scores, decisions and correctness.

        Args:
            cell: The cell.
            scores: Its scores.

        Returns:
            The manifest's rows with ``score``, ``threshold`` (of validation) and ``correct``, each
            image once, under its `Study.judged_condition`.
        """
        frame, scored = self.study.frames[cell.seed], self.study.scored_rows(cell)
        threshold, _ = self.study.operating_point(cell, scores)
        score = scores[self.study.judged_condition(cell)]
        table = frame.iloc[scored].assign(score=score, threshold=threshold)
        table = unique_images(table[self.study.splits(cell) == "test"])
        return table.assign(correct=(table["score"] > threshold) == (table["label"] == FAKE))

    def _test_sets(self, cell: Cell, split: str) -> list[TestSet]:
        """List the test sets: scope, name, positions among the scored rows, and weights."""
        apart = self.study.is_apart(cell)  # else all training sets are tested on the same images
        key = cell.seed, split, self.study.is_nested(cell), cell.train_set if apart else ""
        if key not in self._sets:
            own = self.study.splits(cell) == split
            rows = self.study.frames[cell.seed].iloc[self.study.scored_rows(cell)]
            rows = known_rows(rows.reset_index(drop=True)[own])
            sets = [*image_sets(rows)]
            if split == "val" and self.study.is_nested(cell):
                sets += self._folds(cell, rows)
            elif split == "test":
                sets += self._left_out(cell, rows)
            self._sets[key] = [
                (scope, name, part.index.to_numpy(), self._weights(part, split))
                for scope, name, part in sets
            ]
        return self._sets[key]

    def _folds(self, cell: Cell, rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
        """List the sets that a nested validation rates a head on."""
        place = self.study.scored_rows(cell)[rows.index]
        sets = validation_sets(self.study, cell, place)
        return [("fold", str(n), unique_images(rows[at])) for n, at in enumerate(sets)]

    def _left_out(self, cell: Cell, rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
        """List what was left out: fakes of a family against all photographs, a source alone."""
        training_set = self.study.training_sets[cell.train_set]
        if training_set.left_out is None:
            return []
        new = training_set.left_out[self.study.scored_rows(cell)[rows.index]]
        real = (rows["label"] == REAL).to_numpy()
        # copies of photographs whose source was left out are no new family
        known = set(self.study.frames[cell.seed]["family"][training_set.rows])
        found = []
        for name in rows["family"][new & ~real & ~rows["family"].isin(known)].unique():
            fakes = (rows["family"] == name).to_numpy() & new & ~real
            found.append(("family", str(name), unique_images(rows[fakes | real])))
        for name in rows["source"][new & real].unique():
            photographs = (rows["source"] == name).to_numpy() & new & real
            found.append(("source", str(name), unique_images(rows[photographs])))
        return found

    def _summaries(
        self, found: Mapping[tuple[str, str], Metrics], cell: Cell, split: str
    ) -> dict[tuple[str, str], Metrics]:
        """Sum up the datasets: their mean, the worst, those trained on, and those not.

        In a nested validation everything is new to the head that scored it: what is not trained
        on is the mean over its sets there.
        """
        training_set = self.study.training_sets[cell.train_set]
        every = [values for (scope, _), values in found.items() if scope == "dataset"]
        summaries = {
            ("macro", "mean of datasets"): _reduce(every, worst=False),
            ("worst", "worst dataset"): _reduce(every, worst=True),
        }
        scope, known = "dataset", training_set.seen
        if training_set.by_generator:  # the fakes of a dataset that is seen are not all known
            scope, known = "generator", training_set.generators
        seen = [values for (kind, name), values in found.items() if kind == scope and name in known]
        unseen = [
            values for (kind, name), values in found.items() if kind == scope and name not in known
        ]
        if split == "val" and self.study.is_nested(cell):
            unseen = [values for (kind, _), values in found.items() if kind == "fold"]
        elif not unseen:
            seen = every  # there are datasets without a generator: those of real images alone
        if seen:
            summaries["seen", "mean of what it was trained on"] = _reduce(seen, worst=False)
        if unseen:
            summaries["unseen", "mean of what it was not trained on"] = _reduce(unseen, worst=False)
        # an image that serves several datasets counts once among all
        pooled = found["pooled", "all images"]
        for values in summaries.values():
            counted = values["n_real"][0] + values["n_fake"][0]
            if counted > pooled["n_real"][0] + pooled["n_fake"][0]:
                values |= {name: pooled[name] for name in ("n_real", "n_fake")}
        return summaries

    def _weights(self, rows: pd.DataFrame, split: str) -> npt.NDArray[np.uint8]:
        """Weigh rows: first all ones, then the replicates of a test; shape ``(1 + B, N)``."""
        ones = np.ones((1, len(rows)), np.uint8)
        if split != "test":
            return ones
        drawn = group_weights(rows["group"].tolist(), replicates=self.replicates, seed=0)
        return np.asfortranarray(np.concatenate([ones, drawn]))  # fastest along replicates


def judge_cells(
    cells: Sequence[Cell],
    keys: Mapping[Cell, str],
    study: Study,
    workers: Workers,
    *,
    metric: str,
    replicates: int,
) -> Results:
    """Judge all finished cells, in processes.

    Args:
        cells: The cells.
        keys: Their keys.
        study: What they were fitted on.
        workers: The processes.
        metric: The primary metric.
        replicates: How many bootstrap replicates.

    Returns:
        Their numbers, in the order of `cells`.

    Raises:
        StudyError: If a process dies.
    """
    chunks = [cells[start : start + 16] for start in range(0, len(cells), 16)]
    todo = [[(cell, keys[cell]) for cell in chunk] for chunk in chunks]
    judge = Judge(study, metric=metric, replicates=replicates)
    found: dict[int, _Judged] = {}
    for place, judged in workers.run(_judge_chunk, todo, judge, folder=study.folder):
        if judged is None:
            raise StudyError(f"judging {todo[place][0][0]} and those after it: {DIED}")
        found[place] = judged
    in_order = [found[place] for place in range(len(todo))]
    table = pd.DataFrame([row for rows, _ in in_order for row in rows])
    return Results(table, np.concatenate([replicates for _, replicates in in_order]))


def _judge_chunk(judge: Judge, todo: list[tuple[Cell, str]]) -> _Judged:
    store = CellStore(judge.study.folder)
    rows: list[dict[str, object]] = []
    kept: list[npt.NDArray[np.float32]] = []
    for cell, key in todo:
        found, values = judge(cell, store.read(key)[0])
        rows += found
        kept.append(values)
    return rows, np.concatenate(kept)


def _counts(label: npt.NDArray[np.int64]) -> Metrics:
    fakes = float((label == FAKE).sum())
    return {"n_real": np.array([len(label) - fakes]), "n_fake": np.array([fakes])}


def _reduce(sets: Sequence[Metrics], *, worst: bool) -> Metrics:
    reduced: Metrics = {}
    for name, metric in METRICS.items():
        stacked = np.stack([values[name] for values in sets])  # (sets, 1 + B)
        missing = np.isnan(stacked)
        if worst:
            filled = np.where(missing, metric.sign * np.inf, stacked)
            value = filled.max(0) if metric.lower_is_better else filled.min(0)
        else:
            value = np.where(missing, 0, stacked).sum(0) / np.maximum(1, (~missing).sum(0))
        reduced[name] = np.where(missing.all(0), np.nan, value)
    for name in ("n_real", "n_fake"):
        reduced[name] = np.sum([values[name] for values in sets], axis=0)
    return reduced


def _numbers(values: Metrics) -> dict[str, float]:
    numbers = {"n_real": float(values["n_real"][0]), "n_fake": float(values["n_fake"][0])}
    for name, metric in METRICS.items():
        value, replicates = float(values[name][0]), values[name][1:]
        known = len(replicates) and metric.has_interval
        ends = percentile_interval(replicates) if known else (np.nan, np.nan)
        numbers |= {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return numbers
