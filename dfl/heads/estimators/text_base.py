"""What heads that compare images with texts share: the texts' vectors, and the margin."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from dfl.errors import HeadError
from dfl.types import FAKE, REAL

__all__ = ["Array", "Features", "Sides", "TextClassifier", "mean_unit", "unit"]

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Sides = tuple[Array, Array]
"""Vectors of real and of fake, as ``REAL`` and ``FAKE`` index them."""


class TextClassifier(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]  # sklearn is untyped
    """An image is scored by how much nearer it is to what is fake than to what is real.

    Attributes:
        classes_: ``[REAL, FAKE]``.
        n_features_in_: E.
        logit_scale_: The text model's factor between cosines and logits.
        real_vectors_: Of length 1, shape ``(R, E)``.
        fake_vectors_: Of length 1, shape ``(F, E)``.
    """

    real_prompts: Sequence[str]
    fake_prompts: Sequence[str]
    model: str
    pretrained: Literal[False] | str | None
    weights: str | None

    @abstractmethod
    def _set_vectors(self, texts: Sides, features: Features, label: npt.ArrayLike | None) -> None:
        """Set the vectors of the classes from those of the prompts and the training images."""

    def fit(self, X: Features, y: npt.ArrayLike | None = None) -> Self:  # noqa: N803  # sklearn's names
        """Embed the prompts, and learn what there is to learn.

        Args:
            X: Image features, shape ``(N, E)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``; it may be None where nothing is learnt.

        Raises:
            BackboneError: If the prompts cannot be embedded.
            HeadError: If the features are not as wide as the texts, or an option is out of range.
        """
        self._check_options()
        features = validate_data(self, X)
        texts = self._embed(features.shape[1])
        self.classes_ = np.array([REAL, FAKE])
        self._set_vectors(texts, features, y)
        return self

    def decision_function(self, X: Features) -> Array:  # noqa: N803  # sklearn's name
        """Score images.

        Args:
            X: Image features, shape ``(N, E)``.

        Returns:
            ``logit_scale * (cos(x, fake) - cos(x, real))``, shape ``(N,)``, above 0 for fake; of
            several vectors of a class, the nearest one counts.
        """
        check_is_fitted(self)
        images = unit(validate_data(self, X, reset=False))
        fake = (images @ self.fake_vectors_.T).max(axis=1)
        real = (images @ self.real_vectors_.T).max(axis=1)
        return np.asarray(self.logit_scale_ * (fake - real))

    def predict(self, X: Features) -> npt.NDArray[np.int64]:  # noqa: N803  # sklearn's name
        """Predict classes: ``FAKE`` where the score is above 0, else ``REAL``; shape ``(N,)``."""
        return np.asarray(self.classes_[(self.decision_function(X) > 0).astype(int)])

    def _check_options(self) -> None:
        """Refuse options that are out of range."""

    def _embed(self, width: int) -> Sides:
        """Embed the prompts of both classes, real first, in one go."""
        from dfl.backbones.text import encode_text  # only here: scoring needs no torch

        for side, prompts in (("real", self.real_prompts), ("fake", self.fake_prompts)):
            if isinstance(prompts, str) or not prompts:
                raise HeadError(f"{side}_prompts {prompts!r}: give a list of texts")
        texts = encode_text(
            [*self.real_prompts, *self.fake_prompts],
            model=self.model,
            pretrained=self.pretrained,
            weights=self.weights,
        )
        if texts.vectors.shape[1] != width:
            raise HeadError(
                f"{width} columns of features for texts of {texts.vectors.shape[1]} "
                f"({self.model}); choose the layer head of the same model alone, as in --layers "
                "'[clip.head]' (pooled for SigLIP), without a reduction"
            )
        self.logit_scale_ = float(texts.logit_scale)
        vectors = texts.vectors.astype(np.float64)
        return vectors[: len(self.real_prompts)], vectors[len(self.real_prompts) :]


def unit(vectors: npt.ArrayLike) -> Array:
    """Scale rows to length 1; a row of zeros stays."""
    rows = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1.0))


def mean_unit(units: Array) -> Array:
    """Average rows, and scale the mean to length 1."""
    return unit(units.mean(axis=0))
