"""Logistic regression and the linear SVM on streamed rows, to the optimum that sklearn seeks.

sklearn's own default tolerance stops earlier, so its coefficients in memory differ a little. The
objectives are sklearn's own, summed over all rows in each step of L-BFGS. The steps are taken in
coordinates in which the objective's curvature at the start is the identity (the Cholesky factor of
its Hessian, from the rows' moments): a dozen passes then do what takes hundreds in columns that are
correlated.
"""

import warnings
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from dfl.heads.stream import CACHED_ROWS, Stream
from dfl.types import FAKE, REAL

__all__ = ["TOLERANCE", "fit_linear_svm", "fit_logistic_regression"]

Array = npt.NDArray[np.float64]
Loss = Callable[[Array], tuple[float, Array]]

TOLERANCE: Final = 1e-6
"""Largest entry of the gradient at the end, in the coordinates of unit curvature."""

_LEAST: Final = 1e-14  # of progress in a step: about the last bits of a mean loss
_JITTER: Final = 1e-12  # of the mean curvature: keeps the factor of a singular matrix finite


def fit_logistic_regression(estimator: LogisticRegression, stream: Stream) -> None:
    """Fit in place; the penalty leaves the intercept alone, as in sklearn."""
    penalty = 1 / (estimator.C * stream.rows)
    ridge = np.append(np.full(stream.dim, penalty), 0.0)
    found, steps = _minimise(stream, _log_loss, 0.25, ridge, estimator.max_iter)
    _keep(estimator, found)
    estimator.n_iter_ = np.array([steps], dtype=np.int32)


def fit_linear_svm(estimator: LinearSVC, stream: Stream) -> None:
    """Fit in place; the penalty covers the intercept, as in liblinear."""
    penalty = 1 / (2 * estimator.C * stream.rows)
    ridge = np.full(stream.dim + 1, 2 * penalty)
    # liblinear takes the intercept for the weight of a column of this value
    ridge[-1] /= estimator.intercept_scaling**2
    found, steps = _minimise(stream, _squared_hinge, 2.0, ridge, estimator.max_iter)
    _keep(estimator, found)
    estimator.n_iter_ = steps


def _log_loss(margin: Array) -> tuple[float, Array]:
    return float(np.logaddexp(0, -margin).sum()), -expit(-margin)


def _squared_hinge(margin: Array) -> tuple[float, Array]:
    short = np.maximum(1 - margin, 0)
    return float(short @ short), -2 * short


def _minimise(
    stream: Stream, loss: Loss, curvature: float, ridge: Array, max_iter: int
) -> tuple[Array, int]:
    """Minimise mean loss + ridge @ w**2 / 2 over coefficients and intercept."""
    factor = _factor(stream, curvature, ridge)
    objective = _Objective(stream, loss, ridge)

    def in_unit_curvature(point: Array) -> tuple[float, Array]:
        weights = solve_triangular(factor, point, lower=False)
        value, gradient = objective(weights)
        return value, solve_triangular(factor, gradient, lower=False, trans="T")

    found = minimize(
        in_unit_curvature,
        np.zeros(stream.dim + 1),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": max_iter,
            "maxfun": 2 * max_iter + 20,
            "gtol": TOLERANCE,
            "ftol": _LEAST,
        },
    )
    if found.nit >= max_iter:
        warnings.warn(f"stopped after {found.nit} steps", ConvergenceWarning, stacklevel=2)
    return solve_triangular(factor, found.x, lower=False), int(found.nit)


def _factor(stream: Stream, curvature: float, ridge: Array) -> Array:
    """Factor the Hessian at zero, where every row counts: upper, shape ``(D + 1, D + 1)``."""
    moments = stream.moments()
    mean = moments.joint_mean()
    hessian = np.empty((stream.dim + 1, stream.dim + 1))
    hessian[:-1, :-1] = moments.joint_scatter() / moments.rows + np.outer(mean, mean)
    hessian[-1, :-1] = hessian[:-1, -1] = mean
    hessian[-1, -1] = 1
    hessian *= curvature
    diagonal = np.diag_indices_from(hessian)
    hessian[diagonal] += ridge
    hessian[diagonal] += _JITTER * hessian[diagonal].mean()
    return np.asarray(cholesky(hessian, lower=False, overwrite_a=True))


class _Objective:
    """The objective and its gradient, in one pass over the rows.

    Scaling is applied to the weights, not to the rows: that spares a copy of each.
    """

    def __init__(self, stream: Stream, loss: Loss, ridge: Array) -> None:
        self.rows, self.count = stream.unscaled, stream.rows
        self.mean, self.scale = stream.affine()
        self.loss, self.ridge = loss, ridge

    def __call__(self, weights: Array) -> tuple[float, Array]:
        slope = weights[:-1] / self.scale
        intercept = weights[-1] - self.mean @ slope
        total, pull, push = 0.0, 0.0, np.zeros_like(slope)
        for block, label in self.rows.blocks(CACHED_ROWS):
            rows = block.astype(np.float64)
            sign = np.where(label == FAKE, 1.0, -1.0)
            value, change = self.loss(sign * (rows @ slope + intercept))
            change *= sign
            total += value
            push += change @ rows
            pull += float(change.sum())
        gradient = np.append((push - self.mean * pull) / self.scale, pull) / self.count
        value = total / self.count + 0.5 * float(self.ridge @ weights**2)
        return value, gradient + self.ridge * weights


def _keep(estimator: LogisticRegression | LinearSVC, weights: Array) -> None:
    estimator.classes_ = np.array([REAL, FAKE])
    estimator.coef_ = weights[None, :-1].copy()
    estimator.intercept_ = weights[-1:].copy()
    estimator.n_features_in_ = len(weights) - 1
