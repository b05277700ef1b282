"""What a gain has to be held against: the same head without some images, or on shuffled labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import ClassifierMixin, clone

from dfl.errors import HeadError, named
from dfl.heads.estimators.margin import ScoredByInner
from dfl.heads.estimators.provenance import asks_for, kinds_of
from dfl.types import FAKE

Features = npt.NDArray[np.number]
Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_]


@dataclass(eq=False, repr=False)
class Without(ScoredByInner):
    """Leave the fakes of some families out, such as reconstructions, to see what they bring.

    Args:
        estimator: Any classifier.
        families: The names of the families; one that is not among the images is none of them.

    Attributes:
        estimator_: The fitted classifier, which scores.
        classes_: ``[REAL, FAKE]``.
        n_features_in_: D.
    """

    estimator: ClassifierMixin
    families: Sequence[str]

    def fit(
        self,
        X: Features,  # noqa: N803  # sklearn's name
        y: npt.ArrayLike,
        provenance: pd.DataFrame | None = None,
        **asked: object,
    ) -> Self:
        """Fit a copy of the classifier on the other images.

        Args:
            X: Features, shape ``(N, D)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``.
            provenance: Columns ``generator``, ``family``, ``source``, ``dataset`` of the same
                images, handed on to a classifier that asks for it.
            asked: Handed on to the classifier's `fit`; of ``sample_weight`` what is left.

        Raises:
            HeadError: If no fake is left, or the provenance does not fit.
        """
        label = np.asarray(y)
        kept = self.kept(label, provenance)
        if asked.get("sample_weight") is not None:
            asked["sample_weight"] = np.asarray(asked["sample_weight"])[kept]
        if provenance is not None and asks_for(self.estimator, "provenance"):
            asked["provenance"] = provenance[kept]
        return self.adopt(clone(self.estimator).fit(np.asarray(X)[kept], label[kept], **asked))

    def kept(self, label: Labels, provenance: pd.DataFrame | None) -> Rows:
        """Say which images are learnt from, shape ``(N,)``; arguments and errors as of `fit`."""
        kinds = kinds_of(label, provenance, "family")
        kept = ~((label == FAKE) & np.isin(kinds.astype(str), list(self.families)))
        if not (label[kept] == FAKE).any():
            raise HeadError(f"no fake is left without {named(list(self.families))}; name fewer")
        return np.asarray(kept)


@dataclass(eq=False, repr=False)
class Shuffled(ScoredByInner):
    """Shuffle the labels of the training images: a score above chance then comes from the protocol.

    Args:
        estimator: Any classifier.
        seed: The seed of the shuffle.

    Attributes:
        estimator_: The fitted classifier, which scores.
        classes_: ``[REAL, FAKE]``.
        n_features_in_: D.
    """

    estimator: ClassifierMixin
    seed: int = 0

    def fit(
        self,
        X: Features,  # noqa: N803  # sklearn's name
        y: npt.ArrayLike,
        **asked: object,
    ) -> Self:
        """Fit a copy of the classifier on labels that say nothing.

        Args:
            X: Features, shape ``(N, D)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``.
            asked: Handed on to the classifier's `fit`.
        """
        label = np.random.default_rng(self.seed).permutation(np.asarray(y))
        return self.adopt(clone(self.estimator).fit(X, label, **asked))
