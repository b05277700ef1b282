"""Fitting cells: those that share features and a reduction together, each kept when it is done."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from dfl.errors import HeadError
from dfl.evaluation import best_threshold, binary_metrics, calibrated, platt_scaling
from dfl.features.matrices import Matrix
from dfl.heads.estimators.reductions import reduced
from dfl.heads.out_of_core.fit import is_streamed
from dfl.heads.out_of_core.stream import Stream
from dfl.heads.storage.head_folder import class_counts, settings
from dfl.heads.storage.sklearn_head import SklearnHead, check_encoders
from dfl.recipe import Plain, Recipe
from dfl.study.design.grid import Cell
from dfl.study.design.training_sets import Rows
from dfl.study.run.cells import CellStore, Outcome, Scores, cause_of
from dfl.study.run.study import Study
from dfl.types import FAKE, FeatureLayer, FeatureSpec

_BLOCK_ROWS: Final = 8192
"""Rows that are scored at a time."""


@dataclass(frozen=True)
class _Candidate:
    """A fitted head and what it achieves on validation."""

    reducer: Pipeline | None
    head: SklearnHead
    merit: tuple[float, float, float]
    chosen: Recipe


@dataclass(frozen=True)
class _Reduced:
    """A fitted reduction, and what it makes of the training and validation rows."""

    reducer: Pipeline | None
    x_train: Matrix
    x_val: Matrix


def fit_cells(study: Study, cells: Sequence[Cell]) -> list[Outcome]:
    """Fit cells that differ in their head alone, and keep each as it is done.

    Args:
        study: What they are fitted on.
        cells: The cells.

    Returns:
        What became of each cell; a failure is no error here, so that the others go on.
    """
    store = CellStore(study.folder)
    start = time.perf_counter()
    try:
        fitter = _Fitter(cells[0], study)
    except Exception as err:  # whatever it is, it is this group's alone
        return [Outcome(cell, cause_of(err)) for cell in cells]
    shared = (time.perf_counter() - start) / len(cells)
    outcomes = []
    for cell in cells:
        start = time.perf_counter()
        try:
            best = fitter.choose(cell.head)
            scores = fitter.score(best)
            info = best.chosen | {"seconds": round(shared + time.perf_counter() - start, 3)}
            head = fitter.head(best, scores)
            store.keep(study.key(cell), cell, scores, info, head=head, counts=fitter.counts)
        except Exception as err:
            outcomes.append(Outcome(cell, cause_of(err)))
        else:
            outcomes.append(Outcome(cell))
    return outcomes


def fit_head(cell: Cell, study: Study) -> tuple[SklearnHead, dict[str, int]]:
    """Fit the head of a cell, where it is not kept with the scores.

    Args:
        cell: The cell.
        study: What it is fitted on.

    Returns:
        The head that validation chooses, with its operating point, and how many images it has
        learnt from, ``real`` and ``fake``. Its preprocess is that of the condition that the cell
        was judged under, not of training.
    """
    fitter = _Fitter(cell, study)
    best = fitter.choose(cell.head)
    scores = {cell.train_condition: fitter.score_condition(best, cell.train_condition)}
    return fitter.head(best, scores), fitter.counts


class _Fitter:
    """The fitted reductions of a group of cells, and the rows that its heads learn from."""

    def __init__(self, cell: Cell, study: Study) -> None:
        self.cell, self.study = cell, study
        self.frame = study.frames[cell.seed]
        self.label = self.frame["label"].to_numpy(dtype=np.int64)
        self.train, self.val = study.rows(cell, "train"), study.rows(cell, "val")
        own = study.features[cell.train_condition]
        self.spec = own.spec(cell.features)
        self._check_rows()
        self.rows = own.rows(cell.features)
        given = [seeded(pipeline, cell.seed) for pipeline in study.reductions[cell.reduction]]
        self.settings: list[Plain] = [settings(pipeline) for pipeline in given]
        self.reductions: list[Pipeline | None] = [self._loaded(pipeline) for pipeline in given]
        if not given:
            self.settings, self.reductions = [None], [None]
        self._reduced: dict[int, _Reduced] = {}

    @cached_property
    def stream(self) -> Stream:
        """The rows that heads learn from, for those that need not hold them in memory."""
        return Stream(self.rows.chosen(self.train), self.label[self.train])

    @property
    def counts(self) -> dict[str, int]:
        """How many images are learnt from, ``real`` and ``fake``."""
        return class_counts(self.label[self.train])

    def choose(self, head: str) -> _Candidate:
        """Fit all candidates, behind all candidates of the reduction; validation chooses one."""
        pipelines = [seeded(p, self.cell.seed) for p in self.study.heads[head]]
        tried = [
            self._fit(place, pipeline)
            for place in range(len(self.reductions))
            for pipeline in pipelines
        ]
        return max(tried, key=lambda candidate: candidate.merit)  # the first of equally good ones

    def score(self, best: _Candidate) -> Scores:
        """Score the validation and test rows under the conditions of training and testing."""
        conditions = self.study.scored_conditions(self.cell)
        return {condition: self.score_condition(best, condition) for condition in conditions}

    def score_condition(self, best: _Candidate, condition: str) -> npt.NDArray[np.float64]:
        """Score the validation and test rows under one condition."""
        table, features = self.study.features[condition], self.cell.features
        blocks = [
            best.head.score(_transform(best.reducer, table.matrix(features, block)))
            for block in _blocks(self.study.held_out[self.cell.seed])
        ]
        return np.concatenate(blocks) if blocks else np.empty(0)

    def head(self, best: _Candidate, scores: Scores) -> SklearnHead:
        """Give a fitted candidate as one pipeline with its operating point; see `fit_head`.

        Args:
            best: The candidate.
            scores: Its scores under the condition of training, at least.
        """
        cell = self.cell
        judged = self.study.features[self.study.judged_condition(cell)]
        pipeline = best.head.pipeline
        if best.reducer is not None:
            pipeline = Pipeline([*best.reducer.steps, pipeline.steps[-1]])
        threshold, calibration = self.study.operating_point(cell, scores)
        return SklearnHead(
            pipeline,
            self.spec,
            judged.origin(cell.features),
            threshold=threshold,
            calibration=calibration,
        )

    def _reduce(self, place: int) -> "_Reduced":
        """Fit a reduction once for all heads behind it."""
        if place not in self._reduced:
            x_train, x_val = (self.rows.take(rows) for rows in (self.train, self.val))
            reducer: Pipeline | None = None
            if (reduction := self.reductions[place]) is not None:
                reducer = clone(reduction).fit(x_train, self.label[self.train])
            x_train, x_val = (_transform(reducer, x) for x in (x_train, x_val))
            self._reduced[place] = _Reduced(reducer, x_train, x_val)
        return self._reduced[place]

    def _loaded(self, reduction: Pipeline) -> Pipeline:
        """Read the encoder of a trained bottleneck, where there is one in a reduction."""
        empty = Pipeline([("estimator", "passthrough")])
        loaded = Pipeline(reduced(empty, reduction).steps[:-1])
        check_encoders(loaded, self.spec)
        return loaded

    def _fit(self, place: int, pipeline: Pipeline) -> _Candidate:
        whole = reduced(pipeline, self.reductions[place])
        reducer: Pipeline | None = None
        if is_streamed(whole, *self.stream.source.shape, out_of_core="auto"):
            head = SklearnHead(whole, self.spec).fit_streamed(
                self.stream, scratch=self.study.folder
            )
            score = head.score_rows(self.rows.chosen(self.val))
        else:
            table = self._reduce(place)
            reducer, x_train = table.reducer, table.x_train
            spec = self.spec if reducer is None else _code_spec(x_train.shape[1])
            steps = pipeline if reducer is None else Pipeline([pipeline.steps[-1]])
            head = SklearnHead(steps, spec).fit(x_train, self.label[self.train])
            score = head.score(table.x_val)
        chosen: Recipe = {
            "head": settings(pipeline)[-1],
            "reduction": self.settings[place],
        }
        return _Candidate(reducer, head, _merit(score, self.label[self.val]), chosen)

    def _check_rows(self) -> None:
        if not len(self.train):
            raise HeadError(
                f"{self.cell.train_set}: no image of it is in the train split; "
                "lower the data's test_fraction"
            )


def seeded(pipeline: Pipeline, seed: int) -> Pipeline:
    """Copy a pipeline so that all of its random numbers follow from a seed."""
    copy: Pipeline = clone(pipeline)
    for _, step in copy.steps:
        names = step.get_params(deep=False) if hasattr(step, "get_params") else {}
        given = {name: seed for name in ("random_state", "seed") if name in names}
        if given:
            step.set_params(**given)
    return copy


def _transform(reducer: Pipeline | None, features: Matrix) -> Matrix:
    if reducer is None or not len(features):
        return features
    return np.asarray(reducer.transform(features), dtype=np.float32)


def _merit(score: npt.NDArray[np.float64], label: Rows) -> tuple[float, float, float]:
    """Rate validation scores: AUROC, balanced accuracy at the best threshold, calibrated loss.

    On a few images that are easily told apart the first two are 1 for every candidate; then the
    cross-entropy after Platt scaling tells how far apart the classes are.
    """
    prob = calibrated(score, platt_scaling(score, label))
    found = binary_metrics(score, label, threshold=best_threshold(score, label))
    auroc, at_best = found["auroc"], found["balanced_accuracy"]
    if not np.isfinite((auroc, at_best)).all():
        return 0.0, 0.0, 0.0
    right = np.where(label == FAKE, prob, 1 - prob)
    loss = -np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean()
    return auroc, at_best, -round(float(loss), 6)


def _code_spec(dim: int) -> FeatureSpec:
    return (FeatureLayer("code", dim, ""),)


def _blocks(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), _BLOCK_ROWS):
        yield rows[start : start + _BLOCK_ROWS]
