"""A classifier by similarity to the mean image of each kind."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import logsumexp
from sklearn.utils.validation import check_is_fitted, validate_data

from dfl.errors import HeadError
from dfl.heads.estimators.margin import MarginClassifier
from dfl.heads.estimators.provenance import By, kinds_of
from dfl.heads.estimators.text_estimators import unit_rows
from dfl.types import FAKE, REAL

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.number]
Labels = npt.NDArray[np.int64]


@dataclass(eq=False, repr=False)
class Prototypes(MarginClassifier):
    """Compare an image with the mean of each family of fakes and of each source of photographs.

    Rows have length 1, and so has a prototype, the mean of its kind's rows (Snell et al.,
    "Prototypical Networks for Few-shot Learning", NeurIPS 2017, without the learnt network). With
    s(x, p) = cos(x, p) / temperature, the score is

        pool_fake s(x, p) - pool_real s(x, p)

    where pool is the largest, or the logarithm of the mean exponential (softmax): of the mean, not
    of the sum, so that the class with more kinds has no head start. With one prototype a class both
    are the difference of the cosines over the temperature.

    Args:
        by: What a kind is: ``family`` (of a fake; of a photograph its source), ``generator`` (of a
            photograph its source), or ``dataset``.
        pool: ``softmax`` or ``max``.
        temperature: Above 0; the lower, the nearer is ``softmax`` to ``max``.

    Attributes:
        prototypes_: Of length 1, shape ``(K, D)``; those of photographs first.
        kinds_: Their names.
        n_real_: How many of them are of photographs.
        classes_: ``[REAL, FAKE]``.
        n_features_in_: D.
    """

    by: By = "family"
    pool: Literal["softmax", "max"] = "softmax"
    temperature: float = 0.1

    def fit(
        self,
        X: Features,  # noqa: N803  # sklearn's name
        y: npt.ArrayLike,
        provenance: pd.DataFrame | None = None,
    ) -> Self:
        """Average the images of each kind.

        Args:
            X: Features, shape ``(N, D)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``.
            provenance: Columns ``generator``, ``family``, ``source``, ``dataset`` of the same
                images; None if all images of a class are of one kind.

        Raises:
            HeadError: If an option is out of range, the provenance does not fit, or the images of a
                kind cancel out.
        """
        features, label = validate_data(self, X, y)
        return self.fit_blocks([features], label, provenance)

    def fit_blocks(
        self, blocks: Iterable[Features], label: Labels, provenance: pd.DataFrame | None
    ) -> Self:
        """Fit on rows that come in blocks, in the order of labels and provenance; else as `fit`."""
        if self.pool not in ("softmax", "max"):
            raise HeadError(f"pool is {self.pool!r}: choose softmax or max")
        if not 0 < self.temperature < np.inf:
            raise HeadError(f"temperature is {self.temperature}: give a number above 0")
        kinds = kinds_of(label, provenance, self.by)
        pairs = [(int(side), str(kind)) for side, kind in zip(label, kinds, strict=True)]
        known = sorted(set(pairs))  # REAL first
        number = {pair: place for place, pair in enumerate(known)}
        place = np.array([number[pair] for pair in pairs])
        total: Array | None = None
        start = 0
        for block in blocks:
            own = place[start : start + len(block)]
            units = unit_rows(block)
            if total is None:
                total = np.zeros((len(known), units.shape[1]))
            for each in np.unique(own):
                total[each] += units[own == each].sum(axis=0)
            start += len(block)
        if total is None or not total.any(axis=1).all():
            raise HeadError("the images of a kind cancel out; scale the features, or look at them")
        self.prototypes_ = unit_rows(total)
        self.kinds_ = [kind for _, kind in known]
        self.n_real_ = sum(side == REAL for side, _ in known)
        self.classes_ = np.array([REAL, FAKE])
        self.n_features_in_ = self.prototypes_.shape[1]
        return self

    def decision_function(self, X: Features) -> Array:  # noqa: N803  # sklearn's name
        """Score images of features ``(N, D)``; shape ``(N,)``, above 0 for fake."""
        check_is_fitted(self)
        images = unit_rows(validate_data(self, X, reset=False))
        similarity = images @ self.prototypes_.T / self.temperature
        real, fake = np.split(similarity, [self.n_real_], axis=1)
        if self.pool == "max":
            return np.asarray(fake.max(axis=1) - real.max(axis=1))
        return np.asarray(
            logsumexp(fake, axis=1)
            - logsumexp(real, axis=1)
            - np.log(fake.shape[1] / real.shape[1])
        )
