"""How sure a fitted estimator is that an image is fake: one number, 0 where it is undecided."""

from typing import Final, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.utils.validation import check_is_fitted

from dfl.errors import HeadError
from dfl.types import FAKE, REAL

Array = npt.NDArray[np.float64]

PROBABILITY_EPS: Final = 1e-6
"""Probabilities are clipped to [eps, 1 - eps] before they become log-odds, within +-13.8 then."""


def margin(estimator: ClassifierMixin, features: npt.NDArray[np.number]) -> Array:
    """Score images by a fitted estimator.

    The score is its ``decision_function`` where it has one; for Gaussian naive Bayes the difference
    of the two joint log-likelihoods, which does not saturate; otherwise the log-odds of its
    probabilities, clipped by `PROBABILITY_EPS`.

    Args:
        estimator: Fitted on ``REAL`` and ``FAKE``.
        features: Shape ``(N, D)``.

    Returns:
        Shape ``(N,)``, above 0 where the estimator predicts fake.

    Raises:
        HeadError: If it gives neither margins nor probabilities.
    """
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(features), dtype=np.float64)
    if hasattr(estimator, "predict_joint_log_proba"):
        joint = np.asarray(estimator.predict_joint_log_proba(features), dtype=np.float64)  # (N, 2)
        return np.asarray(joint[:, FAKE] - joint[:, REAL])
    if not hasattr(estimator, "predict_proba"):
        raise HeadError(
            f"{type(estimator).__name__} gives neither margins nor probabilities; "
            "choose one of dfl.heads.estimators"
        )
    prob = np.asarray(estimator.predict_proba(features), dtype=np.float64)  # (N, 2)
    real, fake = np.clip(prob, PROBABILITY_EPS, 1 - PROBABILITY_EPS).T
    return np.asarray(np.log1p((fake - real) / real))  # log(fake / real), 0 at a tie only


class MarginClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """A classifier of ``REAL`` and ``FAKE`` that decides by the sign of its score.

    Attributes:
        classes_: ``[REAL, FAKE]``.
    """

    classes_: npt.NDArray[np.int64]

    def predict(self, X: npt.NDArray[np.number]) -> npt.NDArray[np.int64]:  # noqa: N803  # sklearn's name
        """Predict classes: ``FAKE`` where the score is above 0, else ``REAL``; shape ``(N,)``."""
        score = margin(self, X)
        return np.asarray(self.classes_[(score > 0).astype(int)])


class ScoredByInner(MetaEstimatorMixin, MarginClassifier):  # type: ignore[misc]  # sklearn is untyped
    """A classifier that fits another one in a way of its own, and scores as that does.

    Attributes:
        estimator_: The fitted classifier, which scores.
        classes_: ``[REAL, FAKE]``.
        n_features_in_: D.
    """

    estimator_: ClassifierMixin
    n_features_in_: int

    def adopt(self, inner: ClassifierMixin) -> Self:
        """Take a classifier that is fitted so, whoever has fitted it."""
        self.estimator_ = inner
        self.classes_ = inner.classes_
        self.n_features_in_ = inner.n_features_in_
        return self

    def decision_function(self, X: npt.NDArray[np.number]) -> Array:  # noqa: N803  # sklearn's name
        """Score images of features ``(N, D)``; shape ``(N,)``, above 0 for fake."""
        check_is_fitted(self)
        return margin(self.estimator_, X)
