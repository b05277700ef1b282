"""Fitting cells: those that share features and a reduction together, each kept when it is done."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from dfl.errors import HeadError
from dfl.evaluation import best_threshold, binary_metrics, calibrated, platt_scaling
from dfl.features.matrices import Matrix, StackedRows
from dfl.heads.estimators.provenance import fit_parameters, provenance_of, takes_provenance
from dfl.heads.estimators.reductions import reduced
from dfl.heads.out_of_core.fit import is_streamed
from dfl.heads.out_of_core.stream import Stream
from dfl.heads.storage.head_folder import class_counts, settings
from dfl.heads.storage.sklearn_head import SklearnHead, check_encoders
from dfl.recipe import Plain, Recipe
from dfl.study.design.grid import Cell
from dfl.study.design.training_sets import Mask, Rows
from dfl.study.run.cells import CellStore, Outcome, Scores, cause_of
from dfl.study.run.study import Study
from dfl.types import FAKE, FeatureLayer, FeatureSpec

_BLOCK_ROWS: Final = 8192
"""Rows that are scored at a time."""


@dataclass(frozen=True)
class _Fitted:
    """A fitted head, behind a fitted reduction."""

    reducer: Pipeline | None
    head: SklearnHead


@dataclass(frozen=True)
class _Learnt:
    """What heads learn from: images once, or several draws of each, which weigh as much together.

    Attributes:
        stream: The rows, one draw of all images below the other.
        weight: How much each row counts; None for 1 each.
        rows: Their rows in the manifest.
    """

    stream: Stream
    weight: npt.NDArray[np.float64] | None
    rows: Rows


@dataclass(frozen=True)
class _Candidate:
    """A head as it is fitted on all rows and, where validation is nested, on those of each fold."""

    whole: _Fitted
    by_fold: tuple[_Fitted, ...]
    chosen: Recipe


@dataclass(frozen=True)
class _Tried:
    """What a candidate achieves on validation, and the heads that were fitted for it."""

    place: int
    pipeline: Pipeline
    fitted: tuple[_Fitted, ...]
    merit: tuple[float, float, float]


@dataclass(frozen=True)
class _Reduced:
    """A fitted reduction, and what it makes of the rows that it was fitted on."""

    reducer: Pipeline | None
    x_train: Matrix


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
    condition = study.validated_condition(cell)
    scores = {condition: fitter.score_condition(best, condition)}
    return fitter.head(best, scores), fitter.counts


class _Fitter:
    """The fitted reductions of a group of cells, and the rows that its heads learn from."""

    def __init__(self, cell: Cell, study: Study) -> None:
        self.cell, self.study = cell, study
        self.frame = study.frames[cell.seed]
        self.label = self.frame["label"].to_numpy(dtype=np.int64)
        self.train, self.val = study.rows(cell, "train"), study.rows(cell, "val")
        learnt = [study.features[condition] for condition in study.learnt_conditions(cell)]
        self.spec = learnt[0].spec(cell.features)
        self._check_rows()
        self.draws = [each.rows(cell.features) for each in learnt]
        given = [seeded(pipeline, cell.seed) for pipeline in study.reductions[cell.reduction]]
        self.settings: list[Plain] = [settings(pipeline) for pipeline in given]
        self.reductions: list[Pipeline | None] = [self._loaded(pipeline) for pipeline in given]
        if not given:
            self.settings, self.reductions = [None], [None]
        self.folds = study.folds(cell) if study.is_nested(cell) else None
        self._reduced: dict[tuple[int, int | None], _Reduced] = {}
        self._learnt: dict[int | None, _Learnt] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many images are learnt from, ``real`` and ``fake``."""
        return class_counts(self.label[self.train])

    def choose(self, head: str) -> _Candidate:
        """Fit all candidates, behind all candidates of the reduction; validation chooses one."""
        pipelines = [seeded(p, self.cell.seed) for p in self.study.heads[head]]
        tried = [
            self._try(place, pipeline)
            for place in range(len(self.reductions))
            for pipeline in pipelines
        ]
        best = max(tried, key=lambda each: each.merit)  # the first of equally good ones
        chosen: Recipe = {
            "head": settings(best.pipeline)[-1],
            "reduction": self.settings[best.place],
        }
        if self.folds is None:
            return _Candidate(best.fitted[0], (), chosen)
        return _Candidate(self._fit(best.place, best.pipeline), best.fitted, chosen)

    def score(self, best: _Candidate) -> Scores:
        """Score the rows of the cell under the conditions of training and testing."""
        conditions = self.study.scored_conditions(self.cell)
        return {condition: self.score_condition(best, condition) for condition in conditions}

    def score_condition(self, best: _Candidate, condition: str) -> npt.NDArray[np.float64]:
        """Score the rows of the cell under one condition, each with a head that it is new to."""
        rows = self.study.scored_rows(self.cell)
        if self.folds is None:
            return self._scores(best.whole, condition, rows)
        scores = np.empty(len(rows))
        fold_of = self.folds.validated[rows]
        for fold, fitted in [(-1, best.whole), *enumerate(best.by_fold)]:
            at = fold_of == fold
            scores[at] = self._scores(fitted, condition, rows[at])
        return scores

    def _scores(self, fitted: _Fitted, condition: str, rows: Rows) -> npt.NDArray[np.float64]:
        table, features = self.study.features[condition], self.cell.features
        blocks = [
            fitted.head.score(_transform(fitted.reducer, table.matrix(features, block)))
            for block in _blocks(rows)
        ]
        return np.concatenate(blocks) if blocks else np.empty(0)

    def head(self, best: _Candidate, scores: Scores) -> SklearnHead:
        """Give a fitted candidate as one pipeline with its operating point; see `fit_head`.

        Args:
            best: The candidate.
            scores: Its scores under the condition of validation, at least.
        """
        cell = self.cell
        judged = self.study.features[self.study.judged_condition(cell)]
        pipeline = best.whole.head.pipeline
        if best.whole.reducer is not None:
            pipeline = Pipeline([*best.whole.reducer.steps, pipeline.steps[-1]])
        threshold, calibration = self.study.operating_point(cell, scores)
        return SklearnHead(
            pipeline,
            self.spec,
            judged.origin(cell.features),
            threshold=threshold,
            calibration=calibration,
        )

    def _learn(self, fold: int | None) -> _Learnt:
        """Give what heads learn from: all rows, or those of a fold."""
        if fold not in self._learnt:
            rows = self.train
            if self.folds is not None and fold is not None:
                rows = rows[self.folds.learnt(fold)[rows]]
            count = len(self.draws)
            every = np.tile(rows, count)
            self._learnt[fold] = _Learnt(
                Stream(StackedRows([draw.chosen(rows) for draw in self.draws]), self.label[every]),
                np.full(len(every), 1 / count) if count > 1 else None,
                every,
            )
        return self._learnt[fold]

    def _reduce(self, place: int, fold: int | None) -> "_Reduced":
        """Fit a reduction once for all heads behind it."""
        if (place, fold) not in self._reduced:
            learnt = self._learn(fold)
            x_train = learnt.stream.source.take(np.arange(learnt.stream.n_rows))
            reducer: Pipeline | None = None
            if (reduction := self.reductions[place]) is not None:
                reducer = clone(reduction)
                asked = fit_parameters(reducer, self.spec, self._provenance(reducer, learnt.rows))
                reducer.fit(x_train, learnt.stream.label, **asked)
            self._reduced[place, fold] = _Reduced(reducer, _transform(reducer, x_train))
        return self._reduced[place, fold]

    def _loaded(self, reduction: Pipeline) -> Pipeline:
        """Read the encoder of a trained bottleneck, where there is one in a reduction."""
        empty = Pipeline([("estimator", "passthrough")])
        loaded = Pipeline(reduced(empty, reduction).steps[:-1])
        check_encoders(loaded, self.spec)
        return loaded

    def _try(self, place: int, pipeline: Pipeline) -> _Tried:
        """Fit a candidate for validation, and rate it there."""
        condition = self.study.validated_condition(self.cell)
        if self.folds is None:
            whole = self._fit(place, pipeline)
            score = self._scores(whole, condition, self.val)
            return _Tried(place, pipeline, (whole,), _merit(score, self.label[self.val]))
        fitted = tuple(self._fit(place, pipeline, fold) for fold in range(self.folds.count))
        score = np.empty(len(self.val))
        for fold, each in enumerate(fitted):
            at = self.folds.validated[self.val] == fold
            score[at] = self._scores(each, condition, self.val[at])
        sets = validation_sets(self.study, self.cell, self.val)
        merits = [_merit(score[at], self.label[self.val[at]]) for at in sets]
        means = np.mean(merits, axis=0).round(9).tolist() if merits else [0.0, 0.0, 0.0]
        return _Tried(place, pipeline, fitted, (means[0], means[1], means[2]))

    def _fit(self, place: int, pipeline: Pipeline, fold: int | None = None) -> _Fitted:
        whole = reduced(pipeline, self.reductions[place])
        learnt = self._learn(fold)
        provenance = self._provenance(whole, learnt.rows)
        if is_streamed(whole, *learnt.stream.source.shape, out_of_core="auto"):
            head = SklearnHead(whole, self.spec).fit_streamed(
                learnt.stream,
                scratch=self.study.folder,
                provenance=provenance,
                weight=learnt.weight,
            )
            return _Fitted(None, head)
        table = self._reduce(place, fold)
        spec = self.spec if table.reducer is None else _code_spec(table.x_train.shape[1])
        steps = pipeline if table.reducer is None else Pipeline([pipeline.steps[-1]])
        head = SklearnHead(steps, spec).fit(
            table.x_train, learnt.stream.label, provenance, learnt.weight
        )
        return _Fitted(table.reducer, head)

    def _provenance(self, pipeline: Pipeline, rows: Rows) -> pd.DataFrame | None:
        """Say of what kind rows are, where a step asks for it."""
        return provenance_of(self.frame.iloc[rows]) if takes_provenance([pipeline]) else None

    def _check_rows(self) -> None:
        if not len(self.train):
            raise HeadError(
                f"{self.cell.train_set}: no image of it is in the train split; "
                "lower the data's test_fraction"
            )
        if self.study.is_nested(self.cell) and self.study.folds(self.cell).count < 2:
            raise HeadError(
                f"{self.cell.train_set}: nested validation needs two families of generators, or "
                "groups of fakes, and two sources of photographs, or groups of them; add images"
            )


def validation_sets(study: Study, cell: Cell, rows: Rows) -> list[Mask]:
    """List the sets of images on which a nested validation rates a head.

    They are the matched datasets, since what tells the classes of others apart may be subject or
    pipeline; where no matched one is learnt from, all images of each fold.

    Args:
        study: The study.
        cell: The cell.
        rows: Rows that it is validated on.

    Returns:
        Which of ``rows`` each set has; both classes are in it.
    """
    frame, folds = study.frames[cell.seed].iloc[rows], study.folds(cell).validated[rows]
    dataset, label = frame["dataset"].to_numpy(object), frame["label"].to_numpy()
    matched = [dataset == name for name in study.matched]
    # a photograph may be in several datasets, and is listed once
    several = [folds == fold for fold in range(folds.max(initial=-1) + 1)]
    for sets in (matched, several):
        if found := [each for each in sets if len(set(label[each])) == 2]:
            return found
    return []


def seeded(pipeline: Pipeline, seed: int) -> Pipeline:
    """Copy a pipeline so that all of its random numbers follow from a seed."""
    copy: Pipeline = clone(pipeline)
    for _, step in copy.steps:
        names = step.get_params() if hasattr(step, "get_params") else {}
        # also of an estimator within another one
        given = {
            name: seed for name in names if name.rpartition("__")[2] in ("random_state", "seed")
        }
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
