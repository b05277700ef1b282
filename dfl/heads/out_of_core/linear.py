"""Logistic regression and the linear SVM on streamed rows, to the optimum that sklearn seeks.

sklearn's own default tolerance stops earlier, so its coefficients in memory differ a little. The
objectives are sklearn's own, summed over all rows in each step of L-BFGS. The steps are taken in
coordinates in which the objective's curvature at the start is the identity (the Cholesky factor of
its Hessian, from the rows' moments): a dozen passes then do what takes hundreds in columns that are
correlated. Where classes are all but separable, the loss falls by orders of magnitude and the
curvature with it; a trust region takes over then, which sums up the Hessian in each step as well.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from dfl.heads.out_of_core.stream import CACHED_ROWS, Stream, gathered
from dfl.types import FAKE

Array = npt.NDArray[np.float64]

_TOLERANCE: Final = 1e-6  # of the gradient, in the coordinates of unit curvature
_NEAR: Final = 1e-5  # of the gradient by the value: what such a step gains is not lost in rounding
_LEAST: Final = 1e-14  # of progress in a step: about the last bits of a mean loss
_JITTER: Final = 1e-12  # of the mean curvature: keeps the factor of a singular matrix finite
_STEPS: Final = 40  # of L-BFGS, of which a dozen do where the curvature stays what it is
_FALL: Final = 0.1  # a value below this share of the first one: the curvature is another by then


@dataclass(frozen=True)
class _Loss:
    """A convex loss of the margin ``y * score``, which is larger the surer a right decision is.

    Attributes:
        of: Gives it, and its slope, at every margin.
        curvature: Gives its second derivative at every margin.
    """

    of: Callable[[Array], tuple[Array, Array]]
    curvature: Callable[[Array], Array]


def fit_logistic_regression(estimator: LogisticRegression, stream: Stream) -> None:
    """Fit in place; the penalty leaves the intercept alone, as in sklearn."""
    penalty = 1 / (estimator.C * stream.total)
    ridge = np.append(np.full(stream.dim, penalty), 0.0)
    steps = _minimise(estimator, stream, _LOG_LOSS, ridge)
    estimator.n_iter_ = np.array([steps], dtype=np.int32)


def fit_linear_svm(estimator: LinearSVC, stream: Stream) -> None:
    """Fit in place; the penalty covers the intercept, as in liblinear."""
    ridge = np.full(stream.dim + 1, 1 / (estimator.C * stream.total))
    # liblinear takes the intercept for the weight of a column of this value
    ridge[-1] /= estimator.intercept_scaling**2
    estimator.n_iter_ = _minimise(estimator, stream, _SQUARED_HINGE, ridge)


def _log_loss(margin: Array) -> tuple[Array, Array]:
    return np.logaddexp(0, -margin), -expit(-margin)


def _squared_hinge(margin: Array) -> tuple[Array, Array]:
    short = np.maximum(1 - margin, 0)
    return short * short, -2 * short


_LOG_LOSS: Final = _Loss(_log_loss, lambda margin: expit(margin) * expit(-margin))
_SQUARED_HINGE: Final = _Loss(_squared_hinge, lambda margin: np.where(margin < 1, 2.0, 0.0))


def _minimise(
    estimator: LogisticRegression | LinearSVC, stream: Stream, loss: _Loss, ridge: Array
) -> int:
    """Minimise mean loss + ridge @ w**2 / 2 over coefficients and intercept; count the steps."""
    objective = _Objective(stream, loss, ridge)
    at_zero = float(loss.of(np.zeros(1))[0][0])
    most = min(_STEPS, estimator.max_iter)
    options = {"maxiter": most, "gtol": _TOLERANCE, "ftol": _LEAST}
    found = minimize(objective, np.zeros(len(ridge)), jac=True, method="L-BFGS-B", options=options)
    steps = int(found.nit)
    if (not found.success or found.fun < _FALL * at_zero) and steps < estimator.max_iter:
        options = {"maxiter": estimator.max_iter - steps, "gtol": _NEAR * found.fun}
        hessian = objective.hessian
        found = minimize(
            objective, found.x, jac=True, hess=hessian, method="trust-exact", options=options
        )
        steps += int(found.nit)
    if not found.success:
        warnings.warn(f"stopped after {steps} steps", ConvergenceWarning, stacklevel=2)
    weights = objective.weights(found.x)
    estimator.coef_, estimator.intercept_ = weights[None, :-1].copy(), weights[-1:].copy()
    estimator.n_features_in_ = stream.dim
    return steps


class _Objective:
    """The objective, its gradient and its Hessian, each in one pass over the rows.

    They are those in a point of the coordinates in which the curvature at zero is the identity.
    Scaling is applied to the weights, not to the rows: that spares a copy of each.
    """

    def __init__(self, stream: Stream, loss: _Loss, ridge: Array) -> None:
        self.stream, self.loss, self.ridge = stream, loss, ridge
        self.mean, self.scale = stream.affine()
        moments = stream.moments()
        mean = moments.joint_mean()
        hessian = np.empty((len(ridge), len(ridge)))
        hessian[:-1, :-1] = moments.joint_scatter() / moments.total + np.outer(mean, mean)
        hessian[-1, :-1] = hessian[:-1, -1] = mean
        hessian[-1, -1] = 1
        hessian *= loss.curvature(np.zeros(1))
        diagonal = np.diag_indices_from(hessian)
        hessian[diagonal] += ridge
        hessian[diagonal] += _JITTER * hessian[diagonal].mean()
        self.factor = cholesky(hessian, lower=False, overwrite_a=True)

    def weights(self, point: Array) -> Array:
        """Give coefficients and intercept, shape ``(D + 1,)``."""
        return np.asarray(solve_triangular(self.factor, point))

    def __call__(self, point: Array) -> tuple[float, Array]:
        weights = self.weights(point)
        slope, intercept = self._unscaled(weights)
        total, pull, push = 0.0, 0.0, np.zeros_like(slope)
        start = 0
        for block, label in self.stream.unscaled(CACHED_ROWS):
            rows = block.astype(np.float64)
            sign = np.where(label == FAKE, 1.0, -1.0)
            value, change = self.loss.of(sign * (rows @ slope + intercept))
            if self.stream.weight is not None:
                weight = self.stream.weight[start : start + len(label)]
                value, change = value * weight, change * weight
            start += len(label)
            change *= sign
            total += float(value.sum())
            push += change @ rows
            pull += float(change.sum())
        gradient = np.append((push - self.mean * pull) / self.scale, pull) / self.stream.total
        gradient = solve_triangular(self.factor, gradient + self.ridge * weights, trans="T")
        return total / self.stream.total + 0.5 * float(self.ridge @ weights**2), gradient

    def hessian(self, point: Array) -> Array:
        """Sum up the second derivatives, shape ``(D + 1, D + 1)``."""
        slope, intercept = self._unscaled(self.weights(point))
        hessian = np.diag(self.ridge)
        start = 0
        for block, label in gathered(self.stream.unscaled(), len(slope)):
            sign = np.where(label == FAKE, 1.0, -1.0)
            rows = block.astype(np.float64)
            curvature = self.loss.curvature(sign * (rows @ slope + intercept)) / self.stream.total
            if self.stream.weight is not None:
                curvature = curvature * self.stream.weight[start : start + len(label)]
            start += len(label)
            counts = curvature > 0
            rows = (rows[counts] - self.mean) / self.scale
            rows = np.column_stack([rows, np.ones(len(rows))])
            rows *= np.sqrt(curvature[counts])[:, None]
            hessian += rows.T @ rows
        half = solve_triangular(self.factor, hessian, trans="T", overwrite_b=True)
        return np.asarray(solve_triangular(self.factor, half.T, trans="T"))

    def _unscaled(self, weights: Array) -> tuple[Array, float]:
        slope = weights[:-1] / self.scale
        return slope, float(weights[-1] - self.mean @ slope)
