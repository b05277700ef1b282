"""Fit a pipeline on rows that do not fit in memory; the result is an ordinary fitted pipeline.

Scaling, principal components, a trained bottleneck and Nystroem's features, before LDA, logistic
regression, a linear SVM or naive Bayes, come from passes over the rows. What is iterative is taken
to the optimum of sklearn's objective, before which sklearn stops at its own default tolerance; the
rest is what sklearn computes in memory, up to rounding. `Balanced`, `OnePerFamily` and `Without` of
these give rows weights, 0 for those that a classifier does not learn from. An RBF SVM becomes a
linear one on Nystroem's features (Williams and Seeger 2001). Trees and neighbours need all rows at
once.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from dfl.errors import HeadError
from dfl.heads.estimators.block_scaler import BlockScaler
from dfl.heads.estimators.controls import Without
from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.heads.estimators.margin import margin
from dfl.heads.estimators.meta_estimators import (
    Balanced,
    OnePerFamily,
    innermost,
    with_innermost,
)
from dfl.heads.estimators.prototypes import Prototypes
from dfl.heads.estimators.text_estimators import TextSimilarity
from dfl.heads.out_of_core.gaussian import fit_lda, fit_naive_bayes
from dfl.heads.out_of_core.linear import fit_linear_svm, fit_logistic_regression
from dfl.heads.out_of_core.memory import (
    EXACT_RBF_ROWS,
    IN_MEMORY_BYTES,
    free_memory,
    need_at_once,
    need_of_passes,
    readable,
)
from dfl.heads.out_of_core.scratch import scratch_rows
from dfl.heads.out_of_core.steps import (
    LANDMARKS,
    fit_few_rows,
    fit_nystroem,
    fit_pca,
    nystroem_of,
)
from dfl.heads.out_of_core.stream import Stream
from dfl.types import FeatureSpec

logger = logging.getLogger(__name__)

OutOfCore = Literal["auto", "always", "never"]
Array = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.bool_]

_FIRST: Final = np.zeros(1, dtype=np.int64)
_NEWTON_STEPS: Final = 10_000  # as `linear_svm` has it
_INSTEAD: Final = (
    "take lda, linear_svm, logistic_regression, naive_bayes or rbf_svm, or fewer images"
)
_NARROWER: Final = "take fewer layers of the features, or dfl.heads.estimators.bottleneck"
_INSTEAD_OF: Final = {
    "Autoencoder": "train it with `dfl fit` and take dfl.heads.estimators.bottleneck, or pca",
    "RINE": "train dfl.heads.RINETask with `dfl fit`, or take logistic_regression",
    "LinearProbe": "train dfl.heads.LinearProbeTask with `dfl fit`, or take logistic_regression",
}


def is_streamed(pipeline: Pipeline, rows: int, dim: int, *, out_of_core: OutOfCore) -> bool:
    """Decide whether a pipeline is fitted in passes over the rows, or on a matrix in memory.

    Args:
        pipeline: Unfitted.
        rows: Training images.
        dim: Columns of features.
        out_of_core: ``auto`` streams above `IN_MEMORY_BYTES` of features where that needs less
            memory: its sums of D x D are larger than few rows of many columns. An RBF SVM is
            streamed above `EXACT_RBF_ROWS` rows, for its time.

    Raises:
        HeadError: If the pipeline cannot be streamed as asked for, or memory does not suffice for
            the way that is chosen.
    """
    obstacle = _obstacle(pipeline)
    instead = _INSTEAD_OF.get(obstacle or "", _INSTEAD)
    if out_of_core == "always" and obstacle is not None:
        raise HeadError(f"{obstacle} needs all rows at once, not out_of_core; {instead}")
    at_once, in_passes = (need(pipeline, rows, dim) for need in (need_at_once, need_of_passes))
    classifier = innermost(pipeline[-1])
    is_long = type(classifier) is SVC and rows > EXACT_RBF_ROWS
    is_large = 4 * rows * dim > IN_MEMORY_BYTES and in_passes < at_once
    wanted = out_of_core == "auto" and obstacle is None and (is_long or is_large)
    is_passed = wanted or out_of_core == "always"
    if out_of_core == "auto" and is_long and obstacle is not None:
        logger.warning(
            "rbf_svm behind %s is exact, and its time grows with the square of %s images; %s",
            obstacle,
            f"{rows:,}",
            instead,
        )
    need, other = (in_passes, at_once) if is_passed else (at_once, in_passes)
    if need > (free := free_memory()):
        if obstacle is None:
            is_other_less = out_of_core != "auto" and other < need
            instead = "leave out_of_core at auto" if is_other_less else _NARROWER
        what = (
            f"sums of {dim:,} x {dim:,} columns, about {readable(need)}"
            if is_passed
            else f"all {rows:,} x {dim:,} training features at once, about {readable(need)} with "
            "sklearn's copies"
        )
        name = obstacle or type(classifier).__name__
        raise HeadError(f"{name} needs {what}, and {readable(free)} are free; {instead}")
    return is_passed


def fit_streamed(
    pipeline: Pipeline,
    stream: Stream,
    *,
    scratch: Path,
    spec: FeatureSpec = (),
    provenance: pd.DataFrame | None = None,
    weight: Array | None = None,
) -> Pipeline:
    """Fit a copy of a pipeline.

    Args:
        pipeline: Unfitted; one that `is_streamed` accepts.
        stream: The training features and labels.
        scratch: On whose disk to keep what a reduction makes of them; nothing stays there.
        spec: The layers of the features, for steps that ask for them.
        provenance: Of what kind the images are, for an estimator that asks for it.
        weight: How much each row counts for the estimator, shape ``(N,)``; 1 by default.

    Returns:
        The fitted pipeline; ``SVC`` is replaced by ``Nystroem`` and ``LinearSVC`` in it.

    Raises:
        HeadError: If the features are not finite, or the disk does not take them.
        ValueError: If sklearn refuses a setting.
    """
    *before, (last, estimator) = clone(pipeline).steps
    classifier = innermost(estimator)
    if type(classifier) not in _OWN:  # what sklearn refuses is refused before the rows are read
        fit_few_rows(clone(classifier))
    fitted: list[tuple[str, BaseEstimator]] = []
    with ExitStack() as files:
        for name, step in before:
            if type(step) is BlockScaler:
                step.fit_blocks((rows for rows, _ in stream.blocks()), spec)
            step, stream = _pass_through(step, stream, files, scratch)
            fitted.append((name, step))
        if type(classifier) is SVC:
            logger.warning(
                "%s training images are many for an exact RBF SVM: a linear SVM on Nystroem's "
                "features of %d of them stands in",
                f"{stream.n_rows:,}",
                min(LANDMARKS, stream.n_rows),
            )
            step, stream = _pass_through(nystroem_of(classifier, stream), stream, files, scratch)
            fitted.append(("kernel", step))
            linear = LinearSVC(C=classifier.C, dual=False, max_iter=_NEWTON_STEPS)
            estimator = with_innermost(estimator, linear)
        _fit_estimator(estimator, stream if weight is None else stream.weighted(weight), provenance)
    return Pipeline([*fitted, (last, estimator)])


def _fit_estimator(
    estimator: BaseEstimator, stream: Stream, provenance: pd.DataFrame | None
) -> BaseEstimator:
    """Fit in place; rows whose weight is 0 are as if they were not there."""
    label = stream.label
    given = np.ones(len(label)) if stream.weight is None else stream.weight
    there = given > 0
    own = None if provenance is None else provenance[there]
    if isinstance(estimator, Balanced):
        weight = given.copy()
        weight[there] *= estimator.weights(label[there], own)
        inner = clone(estimator.estimator)
        return estimator.adopt(_fit_estimator(inner, stream.weighted(weight), provenance))
    if isinstance(estimator, Without):
        weight = given.copy()
        weight[there] *= estimator.kept(label[there], own)
        inner = clone(estimator.estimator)
        return estimator.adopt(_fit_estimator(inner, stream.weighted(weight), provenance))
    if isinstance(estimator, OnePerFamily):
        members, kinds = [], []
        for kind, rows in estimator.shares(label[there], own):
            weight = given.copy()
            weight[there] *= rows
            inner = clone(estimator.estimator)
            members.append(_fit_estimator(inner, stream.weighted(weight), provenance))
            kinds.append(kind)
        return estimator.adopt(members, _spreads(members, stream, there), kinds)
    if isinstance(estimator, Prototypes):
        return estimator.fit_blocks(_only(stream, there), label[there], own)
    if type(estimator) not in _OWN:
        fit_few_rows(estimator)
    _ESTIMATORS[type(estimator)](estimator, stream)
    return estimator


def _spreads(members: Sequence[BaseEstimator], stream: Stream, there: Rows) -> Array:
    """Measure the standard deviation of each classifier's scores, shape ``(K,)``."""
    scores = StandardScaler()
    for rows in _only(stream, there):
        if len(rows):
            scores.partial_fit(np.column_stack([margin(member, rows) for member in members]))
    return np.asarray(np.sqrt(scores.var_))


def _only(stream: Stream, there: Rows) -> Iterator[Matrix]:
    """Pass over some of the rows."""
    start = 0
    for rows, label in stream.blocks():
        yield rows[there[start : start + len(label)]]
        start += len(label)


def _pass_through(
    step: BaseEstimator, stream: Stream, files: ExitStack, scratch: Path
) -> tuple[BaseEstimator, Stream]:
    """Fit a step; what it makes of the rows is kept in a file, unless it only scales them."""
    if type(step) is StandardScaler:
        scaled = stream.standardised()
        return deepcopy(scaled.scaler), scaled
    _STEPS[type(step)](step, stream)
    width = step.transform(stream.take(_FIRST)).shape[1]
    blocks = (step.transform(rows) for rows, _ in stream.blocks())
    rows = files.enter_context(scratch_rows(blocks, (stream.n_rows, width), scratch))
    return step, Stream(rows, stream.label)


def _fit_width(step: BottleneckEncoder | TextSimilarity, stream: Stream) -> None:
    step.fit(stream.take(_FIRST))  # nothing is learnt of the images


def _obstacle(pipeline: Pipeline) -> str | None:
    """Name the first step that needs all rows at once."""
    *before, (_, estimator) = pipeline.steps
    for _, step in before:
        if type(step) not in _STEPS and type(step) is not StandardScaler:
            return type(step).__name__
    classifier = innermost(estimator)
    known = type(classifier) in (*_ESTIMATORS, Prototypes, SVC)
    return None if known and _has_known_settings(classifier) else type(classifier).__name__


def _has_known_settings(estimator: BaseEstimator) -> bool:
    """Whether it solves the problem that is solved here, with a binary label and no weights."""
    usual = _SETTINGS.get(type(estimator), {})
    given = estimator.get_params(deep=False)
    return all(given[name] in allowed for name, allowed in usual.items())


_STEPS: Final[dict[type, Callable[[Any, Stream], None]]] = {
    PCA: fit_pca,
    Nystroem: fit_nystroem,
    BottleneckEncoder: _fit_width,
    BlockScaler: lambda *_: None,  # fitted, by the layers
}
_ESTIMATORS: Final[dict[type, Callable[[Any, Stream], None]]] = {
    LinearDiscriminantAnalysis: fit_lda,
    LogisticRegression: fit_logistic_regression,
    LinearSVC: fit_linear_svm,
    GaussianNB: fit_naive_bayes,
    TextSimilarity: _fit_width,
}
_OWN: Final = (TextSimilarity, Prototypes)
"""Estimators of this package, which refuse settings by themselves."""
_SETTINGS: Final[dict[type, dict[str, tuple[object, ...]]]] = {
    LinearDiscriminantAnalysis: {
        "solver": ("svd", "lsqr"),
        "priors": (None,),
        "n_components": (None,),
        "covariance_estimator": (None,),
        "store_covariance": (False,),
    },
    LogisticRegression: {
        "l1_ratio": (0.0, None),
        "solver": ("lbfgs",),
        "fit_intercept": (True,),
        "class_weight": (None,),
        "warm_start": (False,),
    },
    LinearSVC: {
        "penalty": ("l2",),
        "loss": ("squared_hinge",),
        "fit_intercept": (True,),
        "class_weight": (None,),
    },
    GaussianNB: {"priors": (None,)},
    SVC: {"kernel": ("rbf",), "class_weight": (None,), "probability": (False, "deprecated")},
}
"""Values by which sklearn solves the same problem; any other is left to sklearn."""
