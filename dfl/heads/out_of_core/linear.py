"""Logistic regression and the linear SVM on streamed rows, to the optimum that sklearn seeks.

sklearn's own default tolerance stops earlier, so its coefficients in memory differ a little. The
objectives are sklearn's own, summed over all rows in each step of L-BFGS. The steps are taken in
coordinates in which the objective's curvature at the start is the identity (the Cholesky factor of
its Hessian, from the rows' moments): a dozen passes then do what takes hundreds in columns that are
correlated. Where classes are all but separable, the loss falls by orders of magnitude and the
curvature with it; Newton's method takes over then, whose steps have one more pass each.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import OptimizeResult, minimize
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from dfl.heads.out_of_core.stream import CACHED_ROWS, Stream, gathered
from dfl.types import FAKE, REAL

__all__ = ["TOLERANCE", "fit_linear_svm", "fit_logistic_regression"]

Array = npt.NDArray[np.float64]

TOLERANCE: Final = 1e-6
"""Largest entry of the gradient at the end, in the coordinates of unit curvature."""

_LEAST: Final = 1e-14  # of progress in a step: about the last bits of a mean loss
_JITTER: Final = 1e-12  # of the mean curvature: keeps the factor of a singular matrix finite
_STEPS: Final = 40  # of L-BFGS, of which a dozen do where the curvature stays what it is
_FALL: Final = 0.1  # a value below this share of the first one: the curvature is another by then
_NOTHING: Final = 1e-10  # of the value: a gain for which no further step is taken
_NEARLY_NOTHING: Final = 1e-6
_SMALLEST: Final = 1e-9  # of a step


@dataclass(frozen=True)
class _Loss:
    """A convex loss of the margin ``y * score``, which is larger the surer a right decision is.

    Attributes:
        of: Gives its sum, and its slope at every margin.
        curvature: Gives its second derivative at every margin.
    """

    of: Callable[[Array], tuple[float, Array]]
    curvature: Callable[[Array], Array]


def fit_logistic_regression(estimator: LogisticRegression, stream: Stream) -> None:
    """Fit in place; the penalty leaves the intercept alone, as in sklearn."""
    penalty = 1 / (estimator.C * stream.rows)
    ridge = np.append(np.full(stream.dim, penalty), 0.0)
    found, steps = _minimise(stream, _LOG_LOSS, ridge, estimator.max_iter)
    _keep(estimator, found)
    estimator.n_iter_ = np.array([steps], dtype=np.int32)


def fit_linear_svm(estimator: LinearSVC, stream: Stream) -> None:
    """Fit in place; the penalty covers the intercept, as in liblinear."""
    penalty = 1 / (2 * estimator.C * stream.rows)
    ridge = np.full(stream.dim + 1, 2 * penalty)
    # liblinear takes the intercept for the weight of a column of this value
    ridge[-1] /= estimator.intercept_scaling**2
    found, steps = _minimise(stream, _SQUARED_HINGE, ridge, estimator.max_iter)
    _keep(estimator, found)
    estimator.n_iter_ = steps


def _log_loss(margin: Array) -> tuple[float, Array]:
    return float(np.logaddexp(0, -margin).sum()), -expit(-margin)


def _squared_hinge(margin: Array) -> tuple[float, Array]:
    short = np.maximum(1 - margin, 0)
    return float(short @ short), -2 * short


_LOG_LOSS: Final = _Loss(_log_loss, lambda margin: expit(margin) * expit(-margin))
_SQUARED_HINGE: Final = _Loss(_squared_hinge, lambda margin: np.where(margin < 1, 2.0, 0.0))


def _minimise(stream: Stream, loss: _Loss, ridge: Array, max_iter: int) -> tuple[Array, int]:
    """Minimise mean loss + ridge @ w**2 / 2 over coefficients and intercept."""
    objective = _Objective(stream, loss, ridge)
    found = _descend(objective, objective.hessian_at_zero(), min(_STEPS, max_iter))
    weights, steps, is_done = found.x, int(found.nit), bool(found.success)
    at_zero, _ = loss.of(np.zeros(1))
    if not is_done or found.fun < _FALL * at_zero:
        weights, more, is_done = _newton(objective, weights, max_iter - steps)
        steps += more
    if not is_done:
        warnings.warn(f"stopped after {steps} steps", ConvergenceWarning, stacklevel=2)
    return weights, steps


def _descend(objective: "_Objective", hessian: Array, max_iter: int) -> OptimizeResult:
    """Go down by L-BFGS from zero, in coordinates in which `hessian` is the identity."""
    factor = _factor(hessian)

    def in_unit_curvature(point: Array) -> tuple[float, Array]:
        value, gradient = objective(solve_triangular(factor, point, lower=False))
        return value, solve_triangular(factor, gradient, lower=False, trans="T")

    found = minimize(
        in_unit_curvature,
        np.zeros(len(factor)),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": max_iter,
            "maxfun": 2 * max_iter + 20,
            "gtol": TOLERANCE,
            "ftol": _LEAST,
        },
    )
    found.x = solve_triangular(factor, found.x, lower=False)
    return found


def _newton(objective: "_Objective", weights: Array, max_iter: int) -> tuple[Array, int, bool]:
    """Go down by Newton's steps, halved until they gain something.

    Returns:
        The weights, how many steps it took, and whether the gain that the next one promises (half
        of Newton's decrement squared) is next to nothing.
    """
    value, gradient = objective(weights)
    for step in range(max_iter):
        factor = _factor(objective.hessian(weights))
        direction = -cho_solve((factor, False), gradient)
        promise = -0.5 * float(gradient @ direction)
        if promise <= _NOTHING * value:
            return weights, step, True
        size = 1.0
        while (found := objective(weights + size * direction))[0] > value - 1e-4 * size * promise:
            size /= 2
            if size < _SMALLEST:  # of a difference that rounding hides
                return weights, step, promise <= _NEARLY_NOTHING * value
        weights = weights + size * direction
        value, gradient = found
    return weights, max_iter, False


def _factor(hessian: Array) -> Array:
    """Factor a Hessian: upper, shape ``(D + 1, D + 1)``."""
    diagonal = np.diag_indices_from(hessian)
    hessian[diagonal] += _JITTER * hessian[diagonal].mean()
    return np.asarray(cholesky(hessian, lower=False, overwrite_a=True))


class _Objective:
    """The objective and its gradient, in one pass over the rows.

    Scaling is applied to the weights, not to the rows: that spares a copy of each.
    """

    def __init__(self, stream: Stream, loss: _Loss, ridge: Array) -> None:
        self.stream, self.rows, self.count = stream, stream.unscaled, stream.rows
        self.mean, self.scale = stream.affine()
        self.loss, self.ridge = loss, ridge

    def __call__(self, weights: Array) -> tuple[float, Array]:
        slope, intercept = self._unscaled(weights)
        total, pull, push = 0.0, 0.0, np.zeros_like(slope)
        for block, label in self.rows.blocks(CACHED_ROWS):
            rows = block.astype(np.float64)
            sign = np.where(label == FAKE, 1.0, -1.0)
            value, change = self.loss.of(sign * (rows @ slope + intercept))
            change *= sign
            total += value
            push += change @ rows
            pull += float(change.sum())
        gradient = np.append((push - self.mean * pull) / self.scale, pull) / self.count
        value = total / self.count + 0.5 * float(self.ridge @ weights**2)
        return value, gradient + self.ridge * weights

    def hessian_at_zero(self) -> Array:
        """Give the Hessian where every row counts alike, from the rows' moments."""
        moments = self.stream.moments()
        mean = moments.joint_mean()
        hessian = np.empty((len(mean) + 1, len(mean) + 1))
        hessian[:-1, :-1] = moments.joint_scatter() / moments.rows + np.outer(mean, mean)
        hessian[-1, :-1] = hessian[:-1, -1] = mean
        hessian[-1, -1] = 1
        hessian *= self.loss.curvature(np.zeros(1))
        hessian[np.diag_indices_from(hessian)] += self.ridge
        return hessian

    def hessian(self, weights: Array) -> Array:
        """Give the Hessian at some weights, in one pass over the rows."""
        slope, intercept = self._unscaled(weights)
        hessian = np.diag(self.ridge)
        for block, label in gathered(self.rows.blocks(), len(slope)):
            sign = np.where(label == FAKE, 1.0, -1.0)
            rows = block.astype(np.float64)
            curvature = self.loss.curvature(sign * (rows @ slope + intercept)) / self.count
            counts = curvature > 0
            rows = (rows[counts] - self.mean) / self.scale
            rows = np.column_stack([rows, np.ones(len(rows))])
            rows *= np.sqrt(curvature[counts])[:, None]
            hessian += rows.T @ rows
        return hessian

    def _unscaled(self, weights: Array) -> tuple[Array, float]:
        slope = weights[:-1] / self.scale
        return slope, float(weights[-1] - self.mean @ slope)


def _keep(estimator: LogisticRegression | LinearSVC, weights: Array) -> None:
    estimator.classes_ = np.array([REAL, FAKE])
    estimator.coef_ = weights[None, :-1].copy()
    estimator.intercept_ = weights[-1:].copy()
    estimator.n_features_in_ = len(weights) - 1
