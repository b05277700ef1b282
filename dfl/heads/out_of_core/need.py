"""About how much memory the fit of a pipeline needs, at once and in passes over the rows."""

from collections.abc import Iterator
from typing import Final

from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.heads.out_of_core.steps import LANDMARKS

_FLOAT32, _FLOAT64 = 4, 8
_COPIES: Final = 4  # sklearn holds the rows, the scaled rows and those in float64
_COVARIANCES: Final = 3  # D x D: what sklearn's LDA makes of them at its peak
_SCATTERS: Final = 6  # D x D: each class's, their sum, and what is made of it
_SHRUNK_SCATTERS: Final = 9  # D x D: those of each class before and after shrinkage
_SUMMED: Final = (PCA, LinearDiscriminantAnalysis, LogisticRegression, LinearSVC, GaussianNB)


def need_at_once(pipeline: Pipeline, rows: int, dim: int) -> int:
    """Estimate the memory of sklearn's fit on a matrix.

    Args:
        pipeline: Unfitted.
        rows: Training images.
        dim: Columns of features.

    Returns:
        Bytes.
    """
    need = _COPIES * _FLOAT32 * rows * dim
    for step, width in _widths(pipeline, rows, dim):
        if _has_covariance(step):
            need += _COVARIANCES * _FLOAT64 * width**2
    return need


def need_of_passes(pipeline: Pipeline, rows: int, dim: int) -> int:
    """Estimate the memory of a streamed fit, most of which is sums of D x D over the rows.

    Args:
        pipeline: Unfitted; one that can be streamed.
        rows: Training images.
        dim: Columns of features.

    Returns:
        Bytes.
    """
    need = 0
    for step, width in _widths(pipeline, rows, dim):
        if type(step) in _SUMMED:
            matrices = _SHRUNK_SCATTERS if _has_covariance(step) else _SCATTERS
            need += matrices * _FLOAT64 * width**2
        elif type(step) is SVC:
            landmarks = min(LANDMARKS, rows)
            need += _FLOAT64 * landmarks * (_SCATTERS * landmarks + 2 * width)
            if step.gamma == "scale":
                need += _SCATTERS * _FLOAT64 * width**2
    return need


def _has_covariance(step: BaseEstimator) -> bool:
    return type(step) is LinearDiscriminantAnalysis and step.solver != "svd"


def _widths(pipeline: Pipeline, rows: int, dim: int) -> Iterator[tuple[BaseEstimator, int]]:
    """Go through the steps, each with the columns that it takes."""
    for _, step in pipeline.steps:
        yield step, dim
        if type(step) is BottleneckEncoder:
            dim = len(step.biases[-1])
        elif type(step) in (PCA, Nystroem):
            count = step.n_components
            # a fraction of the variance is not known in directions before it is fitted
            dim = min(rows, dim) if count is None or 0 < count < 1 else min(rows, int(count))
        elif type(step) is not StandardScaler:
            dim = 0  # not known: nothing is refused for it
