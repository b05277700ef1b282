"""Classifiers that wrap another one and know of what kind the training images are.

A training set has many images of some generators and few of others, and photographs of few sources.
What is learnt from it should not depend on how many of each somebody happened to collect.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from dfl.errors import HeadError
from dfl.heads.estimators.controls import Without
from dfl.heads.estimators.margin import MarginClassifier, ScoredByInner, margin
from dfl.heads.estimators.provenance import By, Kinds, asks_for, kinds_of, takes_weights
from dfl.types import FAKE, REAL

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.number]
Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_]

_LEAST_SPREAD: Final = 1e-9  # of a classifier's scores; less is rounding


@dataclass(eq=False, repr=False)
class Balanced(ScoredByInner):
    """Weight images so that both classes count alike, and in each class every kind.

    An image of kind k among the K kinds of its class weighs ``N / (2 * K * N_k)``, where N is the
    number of all images and N_k of those of its kind. The weights sum to N, so that a penalty such
    as C keeps its meaning. Where a class has one kind, this is sklearn's ``class_weight=balanced``.

    Args:
        estimator: Any classifier whose `fit` takes ``sample_weight``.
        by: What a kind is: ``family`` (of a fake; of a photograph its source), ``generator`` (of a
            photograph its source), or ``dataset``.

    Attributes:
        estimator_: The fitted classifier, which scores.
        classes_: ``[REAL, FAKE]``.
        n_features_in_: D.
    """

    estimator: ClassifierMixin
    by: By = "family"

    def fit(
        self,
        X: Features,  # noqa: N803  # sklearn's name
        y: npt.ArrayLike,
        provenance: pd.DataFrame | None = None,
        sample_weight: npt.ArrayLike | None = None,
        **asked: object,
    ) -> Self:
        """Fit a copy of the classifier on weighted images.

        Args:
            X: Features, shape ``(N, D)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``.
            provenance: Columns ``generator``, ``family``, ``source``, ``dataset`` of the same
                images; None if all images of a class are of one kind.
            sample_weight: What the weights are multiplied by, shape ``(N,)``; 1 by default.
            asked: Handed on to the classifier's `fit`.

        Raises:
            HeadError: If the classifier takes no weights, or the provenance does not fit.
        """
        weight = self.weights(np.asarray(y), provenance)
        if sample_weight is not None:
            weight = weight * np.asarray(sample_weight)
        inner = clone(self.estimator).fit(X, y, sample_weight=weight, **asked)
        return self.adopt(inner)

    def weights(self, label: Labels, provenance: pd.DataFrame | None) -> Array:
        """Give each image its weight, shape ``(N,)``; arguments and errors as of `fit`."""
        if not takes_weights(self.estimator):
            raise HeadError(
                f"{type(self.estimator).__name__} takes no weights of images; balance "
                "logistic_regression, linear_svm, rbf_svm, linear_probe, naive_bayes or trees"
            )
        kinds = kinds_of(label, provenance, self.by)
        weight = np.empty(len(label))
        for side in (REAL, FAKE):
            own = label == side
            _, place, count = np.unique(
                kinds[own].astype(str), return_inverse=True, return_counts=True
            )
            weight[own] = len(label) / (2 * len(count) * count[place])
        return weight

    @property
    def coef_(self) -> Array:
        """Those of a linear classifier, shape ``(1, D)``."""
        return np.asarray(self.estimator_.coef_)

    @property
    def intercept_(self) -> Array:
        """That of a linear classifier, shape ``(1,)``."""
        return np.asarray(self.estimator_.intercept_)


@dataclass(eq=False, repr=False)
class OnePerFamily(MetaEstimatorMixin, MarginClassifier):  # type: ignore[misc]  # sklearn is untyped
    """Fit one classifier for each family of fakes against all photographs; average their scores.

    What one family gives away, another may contradict: one classifier of all of them learns what
    they happen to share. Each score is divided by its standard deviation over *all* training
    images, the same ones for every classifier: otherwise the families that are easily told apart,
    whose classifiers are very sure of themselves, would outvote the others. It is not shifted, so
    that 0 stays where a classifier is undecided.

    The average of linear classifiers is a linear classifier, and is kept as one.

    Args:
        estimator: Any classifier.
        by: ``family`` or ``generator``: one classifier for each of the fakes', against all
            photographs; ``source``: one for each of the photographs', against all fakes.

    Attributes:
        kinds_: The names of the families, generators or sources, sorted.
        scales_: The standard deviations, shape ``(K,)``.
        members_: The classifiers; none where they are linear.
        coef_: Where they are linear, the mean of their coefficients over `scales_`, ``(1, D)``.
        intercept_: Likewise, shape ``(1,)``.
        classes_: ``[REAL, FAKE]``.
        n_features_in_: D.
    """

    estimator: ClassifierMixin
    by: Literal["family", "generator", "source"] = "family"

    def fit(
        self,
        X: Features,  # noqa: N803  # sklearn's name
        y: npt.ArrayLike,
        provenance: pd.DataFrame | None = None,
        sample_weight: npt.ArrayLike | None = None,
        **asked: object,
    ) -> Self:
        """Fit the classifiers.

        Args:
            X: Features, shape ``(N, D)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``.
            provenance: Columns ``generator``, ``family``, ``source``, ``dataset`` of the same
                images, handed on to a classifier that asks for it; None if all images of a class
                are of one kind.
            sample_weight: How much each image counts for the classifiers, shape ``(N,)``; 1 by
                default.
            asked: Handed on to the classifiers' `fit`.

        Raises:
            HeadError: If the provenance does not fit, or a classifier gives one score to all.
        """
        features, label = validate_data(self, X, y)
        members, scales, kinds = [], [], []
        for kind, rows in self.shares(label, provenance):
            own = dict(asked)
            if provenance is not None and asks_for(self.estimator, "provenance"):
                own["provenance"] = provenance[rows]
            if sample_weight is not None:
                own["sample_weight"] = np.asarray(sample_weight)[rows]
            members.append(clone(self.estimator).fit(features[rows], label[rows], **own))
            scales.append(margin(members[-1], features).std())
            kinds.append(kind)
        return self.adopt(members, np.array(scales), kinds)

    def shares(self, label: Labels, provenance: pd.DataFrame | None) -> Iterator[tuple[str, Rows]]:
        """Give each kind's name, and which images its classifier learns from, shape ``(N,)``."""
        if self.by not in ("family", "generator", "source"):
            raise HeadError(f"by is {self.by!r}: choose family, generator or source")
        side = REAL if self.by == "source" else FAKE
        kinds: Kinds = kinds_of(label, provenance, "family" if self.by == "source" else self.by)
        for kind in sorted({str(name) for name in kinds[label == side]}):
            yield kind, np.asarray((label != side) | (kinds == kind))

    def adopt(
        self, members: Sequence[ClassifierMixin], scales: Array, kinds: Sequence[str]
    ) -> Self:
        """Take classifiers that are fitted so, whoever has fitted them.

        Args:
            members: One for each kind.
            scales: The standard deviation of each one's score over all training images, ``(K,)``.
            kinds: Their names.

        Raises:
            HeadError: If a classifier gives one score to all images.
        """
        for kind, scale in zip(kinds, scales, strict=True):
            if not (np.isfinite(scale) and scale > _LEAST_SPREAD):
                raise HeadError(
                    f"the classifier of {kind or 'all'} gives all images one score, so there is "
                    "nothing to average; lower its penalty or look at its images"
                )
        self.kinds_, self.scales_ = list(kinds), scales
        self.classes_ = np.array([REAL, FAKE])
        self.n_features_in_ = members[0].n_features_in_
        linear = [(m.coef_, m.intercept_) for m in members if _is_linear(m)]
        self.members_ = [] if len(linear) == len(members) else list(members)
        if not self.members_:
            coef = [np.ravel(coef) / scale for (coef, _), scale in zip(linear, scales, strict=True)]
            bias = [np.ravel(bias) / scale for (_, bias), scale in zip(linear, scales, strict=True)]
            self.coef_ = np.mean(coef, axis=0)[None]
            self.intercept_ = np.mean(bias, axis=0)
        return self

    def decision_function(self, X: Features) -> Array:  # noqa: N803  # sklearn's name
        """Score images of features ``(N, D)``; shape ``(N,)``, above 0 for fake."""
        check_is_fitted(self)
        features = validate_data(self, X, reset=False)
        if not self.members_:
            return np.asarray(features @ self.coef_[0] + self.intercept_[0])
        scores = [
            margin(member, features) / scale
            for member, scale in zip(self.members_, self.scales_, strict=True)
        ]
        return np.asarray(np.mean(scores, axis=0))


def innermost(estimator: BaseEstimator) -> BaseEstimator:
    """Give what `Balanced`, `OnePerFamily` and `Without` wrap in the end; else the estimator."""
    while isinstance(estimator, Balanced | OnePerFamily | Without):
        estimator = estimator.estimator
    return estimator


def with_innermost(estimator: BaseEstimator, inner: BaseEstimator) -> BaseEstimator:
    """Copy a wrapper, unfitted, with another estimator in the innermost place."""
    if not isinstance(estimator, Balanced | OnePerFamily | Without):
        return inner
    copy = clone(estimator)
    return copy.set_params(estimator=with_innermost(estimator.estimator, inner))


def _is_linear(estimator: ClassifierMixin) -> bool:
    """Whether the score is a product with coefficients: sklearn has them for nothing else."""
    return all(hasattr(estimator, name) for name in ("coef_", "intercept_"))
