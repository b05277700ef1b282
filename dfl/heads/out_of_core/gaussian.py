"""Linear discriminant analysis and Gaussian naive Bayes from streamed moments.

The arithmetic is that of sklearn's estimators on a matrix in memory; what it takes of the rows are
the moments of each class, and for Ledoit and Wolf's shrinkage (2004) their mean fourth power.
"""

import numpy as np
import numpy.typing as npt
from scipy.linalg import lstsq
from sklearn.covariance import shrunk_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB

from dfl.heads.out_of_core.stream import CACHED_ROWS, Moments, Stream
from dfl.types import FAKE, REAL

Array = npt.NDArray[np.float64]


def fit_lda(estimator: LinearDiscriminantAnalysis, stream: Stream) -> None:
    """Fit in place, by the solver ``svd`` (without shrinkage) or ``lsqr``."""
    moments = stream.moments()
    estimator.priors_, estimator.means_ = moments.prior, moments.mean
    estimator.n_features_in_ = stream.dim
    if estimator.solver == "svd":
        coef, intercept = _solve_eigen(estimator, moments)
    else:
        estimator.covariance_ = _covariance(estimator.shrinkage, stream)
        coef = lstsq(estimator.covariance_, moments.mean.T)[0].T
        intercept = -0.5 * (moments.mean * coef).sum(axis=1) + np.log(moments.prior)
    estimator.coef_ = (coef[FAKE] - coef[REAL])[None]
    estimator.intercept_ = intercept[FAKE : FAKE + 1] - intercept[REAL]


def fit_naive_bayes(estimator: GaussianNB, stream: Stream) -> None:
    """Fit in place."""
    moments = stream.moments()
    estimator.class_count_, estimator.class_prior_ = moments.count, moments.prior
    estimator.theta_ = moments.mean
    variance = np.diagonal(moments.joint_scatter()) / moments.total
    estimator.epsilon_ = estimator.var_smoothing * float(variance.max())
    estimator.var_ = _variances(moments) + estimator.epsilon_
    estimator.n_features_in_ = stream.dim


def _variances(moments: Moments) -> Array:
    """Variance of every column in each class, shape ``(2, D)``."""
    diagonals = np.diagonal(moments.scatter, axis1=1, axis2=2)
    return np.asarray(diagonals / moments.count[:, None])


def _solve_eigen(estimator: LinearDiscriminantAnalysis, moments: Moments) -> tuple[Array, Array]:
    """Whiten by the eigenvectors of the scatter within classes: the SVD's, squared."""
    within = (moments.scatter[0] + moments.scatter[1]) / moments.total
    std = np.sqrt(np.diagonal(within))
    std = np.where(std == 0, 1.0, std)
    values, vectors = np.linalg.eigh(within / (std[:, None] * std))
    size = np.sqrt(np.maximum(values[::-1], 0))
    rank = int((size > estimator.tol).sum())
    scalings = vectors[:, ::-1][:, :rank] / std[:, None] / size[:rank]
    centre = moments.joint_mean()
    centred = moments.mean - centre
    between = (np.sqrt(moments.count)[:, None] * centred) @ scalings
    _, spread, axes = np.linalg.svd(between, full_matrices=False)
    estimator.explained_variance_ratio_ = (spread**2 / (spread**2).sum())[:1]
    rank = int((spread > estimator.tol * spread[0]).sum())
    estimator.xbar_, estimator.scalings_ = centre, scalings @ axes.T[:, :rank]
    projected = centred @ estimator.scalings_
    coef = projected @ estimator.scalings_.T
    intercept = -0.5 * (projected**2).sum(axis=1) + np.log(moments.prior) - coef @ centre
    return coef, intercept


def _covariance(shrinkage: str | float | None, stream: Stream) -> Array:
    """Average the shrunk covariances of the classes."""
    moments = stream.moments()
    own = moments.scatter / moments.count[:, None, None]
    if shrinkage == "auto":
        scale = np.sqrt(_variances(moments))
        scale = np.where(scale == 0, 1.0, scale)
        power = _fourth_power(stream, scale)
        for side in (REAL, FAKE):
            both = scale[side][:, None] * scale[side]
            amount = _ledoit_wolf(own[side] / both, moments.count[side], power[side])
            own[side] = shrunk_covariance(own[side] / both, amount) * both
    elif shrinkage not in (None, "empirical"):
        own = shrunk_covariance(own, float(shrinkage))
    return np.asarray(np.tensordot(moments.prior, own, axes=1))


def _fourth_power(stream: Stream, scale: Array) -> Array:
    """Sum ``|(x - mean) / scale|**4`` over the rows of each class, shape ``(2,)``."""
    shift, divisor = stream.affine()
    centre = stream.moments().mean * divisor + shift
    weight = 1 / (scale * divisor) ** 2
    total = np.zeros(2)
    start = 0
    for block, label in stream.unscaled(CACHED_ROWS):
        given = None if stream.weight is None else stream.weight[start : start + len(label)]
        start += len(label)
        for side in (REAL, FAKE):
            difference = block[label == side].astype(np.float64)
            difference -= centre[side]
            np.square(difference, out=difference)
            power = np.square(difference @ weight[side])
            total[side] += power.sum() if given is None else power @ given[label == side]
    return total


def _ledoit_wolf(covariance: Array, count: float, power: float) -> float:
    """Estimate the shrinkage, in [0, 1], as `sklearn.covariance.ledoit_wolf_shrinkage` does."""
    width = len(covariance)
    if width == 1:
        return 0.0
    trace = float(np.trace(covariance))
    square = float((covariance**2).sum())
    noise = (power / count - square) / (width * count)
    distance = (square - trace**2 / width) / width
    noise = min(noise, distance)
    return 0.0 if noise == 0 else noise / distance
