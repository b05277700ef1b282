"""A classifier that has seen photographs alone: how far an image is from them."""

from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted, validate_data

from dfl.errors import HeadError
from dfl.heads.estimators.margin import MarginClassifier
from dfl.heads.estimators.provenance import Kinds, kinds_of
from dfl.types import FAKE, REAL

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.number]

FEWEST: Final = 10
"""Fewest photographs that it is fitted on."""

_FOLDS: Final = 5
_LEAST_SHRINKAGE: Final = 1e-6  # else a covariance of few images has no inverse


def photograph_distance(quantile: float = 0.95) -> Pipeline:
    """Measure how far an image is from photographs; what is generated is not looked at.

    A floor for detectors that learn from generators: it knows none, so none can mislead it.

    Args:
        quantile: The fraction of held-out photographs that are called real, in (0, 1).

    Returns:
        The estimator alone: it scales by what photographs vary.
    """
    return Pipeline([("estimator", PhotographDistance(quantile=quantile))])


@dataclass(eq=False, repr=False)
class PhotographDistance(MarginClassifier):
    """Score an image by its Mahalanobis distance to the photographs, less a quantile of theirs.

    Columns are standardised by the photographs, and their covariance is shrunk (Ledoit and Wolf,
    2004). Photographs are nearer to a covariance that they made themselves, so the quantile is of
    photographs that were left out: by source where sources are known, at random where they are not.
    A score above 0 is then what that share of photographs of an unknown source does not reach, as
    far as the sources at hand are like it.

    Args:
        quantile: The fraction of left-out photographs that are called real, in (0, 1).

    Attributes:
        mean_: Of each column, shape ``(D,)``.
        scale_: Standard deviation of each column, shape ``(D,)``.
        axes_: Directions in which standardised photographs vary, shape ``(K, D)``.
        precision_: One over their shrunk variance along each of them, shape ``(K,)``.
        rest_: The same for every other direction.
        threshold_: The quantile of the distances.
        classes_: ``[REAL, FAKE]``.
        n_features_in_: D.
    """

    quantile: float = 0.95

    def fit(
        self,
        X: Features,  # noqa: N803  # sklearn's name
        y: npt.ArrayLike,
        provenance: pd.DataFrame | None = None,
    ) -> Self:
        """Fit on the photographs alone.

        Args:
            X: Features, shape ``(N, D)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``.
            provenance: Columns ``family`` and ``source`` of the same images; None if all
                photographs are of one source.

        Raises:
            HeadError: If the quantile is out of range, there are too few photographs, or the
                provenance does not fit.
        """
        if not 0 < self.quantile < 1:
            raise HeadError(f"quantile is {self.quantile}: give a fraction between 0 and 1")
        features, label = validate_data(self, X, y, dtype=np.float64)
        is_real = label == REAL
        photographs = features[is_real]
        if len(photographs) < FEWEST:
            raise HeadError(
                f"photograph_distance has {len(photographs)} photographs to learn from, and needs "
                f"{FEWEST}"
            )
        source = kinds_of(label, provenance, "family")[is_real]
        held_out = np.empty(len(photographs))
        for rest, left in _folds(source):
            held_out[left] = _distance(_gaussian(photographs[rest]), photographs[left])
        self.threshold_ = float(np.quantile(held_out, self.quantile))
        self.mean_, self.scale_, self.axes_, self.precision_, self.rest_ = _gaussian(photographs)
        self.classes_ = np.array([REAL, FAKE])
        return self

    def decision_function(self, X: Features) -> Array:  # noqa: N803  # sklearn's name
        """Score images of features ``(N, D)``; shape ``(N,)``, above 0 for fake."""
        check_is_fitted(self)
        features = validate_data(self, X, dtype=np.float64, reset=False)
        gaussian = _Gaussian(self.mean_, self.scale_, self.axes_, self.precision_, self.rest_)
        return _distance(gaussian, features) - self.threshold_


class _Gaussian(NamedTuple):
    """A mean and a shrunk covariance, as `PhotographDistance` keeps them."""

    mean: Array
    scale: Array
    axes: Array
    precision: Array
    rest: float


def _gaussian(photographs: Array) -> _Gaussian:
    mean, scale = photographs.mean(axis=0), photographs.std(axis=0)
    scale[scale == 0] = 1
    standard = (photographs - mean) / scale
    shrinkage = ledoit_wolf_shrinkage(standard, assume_centered=True)
    shrinkage = max(float(shrinkage), _LEAST_SHRINKAGE)
    _, singular, axes = np.linalg.svd(standard, full_matrices=False)
    variance = singular**2 / len(standard)
    towards = shrinkage * max(variance.sum() / standard.shape[1], _LEAST_SHRINKAGE)
    return _Gaussian(mean, scale, axes, 1 / ((1 - shrinkage) * variance + towards), 1 / towards)


def _distance(gaussian: _Gaussian, features: Array) -> Array:
    standard = (features - gaussian.mean) / gaussian.scale
    along = (standard @ gaussian.axes.T) ** 2
    outside = np.maximum((standard**2).sum(axis=1) - along.sum(axis=1), 0)
    return np.asarray(np.sqrt(along @ gaussian.precision + outside * gaussian.rest))


def _folds(
    source: Kinds,
) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Divide photographs by source, or where they have one, at random."""
    groups = source if len(set(source)) > 1 else np.arange(len(source))
    folds = min(_FOLDS, len(set(groups)))
    divided = GroupKFold(folds, shuffle=True, random_state=0).split(groups, groups=groups)
    return list(divided)
