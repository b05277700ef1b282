"""Heads that compare an image with texts: nearer to the words for fake than to those for real.

They take image features that lie in the space of the texts: the layer ``head`` of a CLIP-like
backbone (``pooled`` of a SigLIP), without scaling and without a reduction. Nothing can tell whether
the texts come from the same model as the features; the widths are compared, the rest is the user's
to say.

The text tower is run once, when a head is fitted. A fitted head holds plain arrays, so it stores
without pickle and needs no torch to score.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from dfl.errors import HeadError
from dfl.heads.estimators.margin import MarginClassifier
from dfl.types import FAKE, REAL

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Sides = tuple[Array, Array]
"""Vectors of real and of fake, as ``REAL`` and ``FAKE`` index them."""

_TOLERANCE: Final = 1e-6  # of the gradient of a loss that starts near log 2


@dataclass(eq=False, repr=False)
class TextClassifier(MarginClassifier, ABC):
    """An image is scored by how much nearer it is to what is fake than to what is real.

    Args:
        real_prompts: What a real image may be called.
        fake_prompts: What a fake image may be called.
        model: Name of the text model, as in ``dfl.backbones.text.encode_text``.
        pretrained: Tag of its weights; False for random ones.
        weights: A local file of them.

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
    pretrained: Literal[False] | str | None = None
    weights: str | None = None

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
        images = unit_rows(validate_data(self, X, reset=False))
        fake = (images @ self.fake_vectors_.T).max(axis=1)
        real = (images @ self.real_vectors_.T).max(axis=1)
        return np.asarray(self.logit_scale_ * (fake - real))

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


@dataclass(eq=False, repr=False)
class TextSimilarity(TextClassifier):
    """Zero-shot detection: the images are compared with prompts, and nothing is learnt from them.

    As in Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
    (ICML 2021). With two classes and ``pool="mean"``, the sigmoid of the score is their softmax
    over scaled cosines.

    Takes the arguments of `TextClassifier`, and:

    Args:
        pool: Whether the mean of a class's prompts counts (prompt ensembling: the mean of the unit
            vectors, of length 1 again) or the most similar one.
    """

    _: KW_ONLY
    pool: Literal["mean", "max"] = "mean"

    def _set_vectors(self, texts: Sides, features: Features, label: npt.ArrayLike | None) -> None:
        if self.pool == "mean":
            texts = _mean_unit(texts[REAL])[None], _mean_unit(texts[FAKE])[None]
        self.real_vectors_, self.fake_vectors_ = texts

    def _check_options(self) -> None:
        if self.pool not in ("mean", "max"):
            raise HeadError(f"pool {self.pool!r}: choose mean or max")


@dataclass(eq=False, repr=False)
class LearnedText(TextClassifier):
    """Class vectors that start as averaged texts and are trained on the images.

    A class c starts from the mean of its prompts' vectors, mixed with the mean of its training
    images' where `image_weight` says so, both of length 1: with ``|.|`` for "of length 1 again",

        t_c = |(1 - image_weight) texts_c + image_weight images_c|

    From there, the vectors w_c minimise

        mean_i  log sum_c' exp(s * cos(x_i, w_c')) - s * cos(x_i, w_{y_i})
            + penalty * sum_c (1 - cos(w_c, t_c))

    the cross-entropy of the softmax over scaled cosines, s being the text model's own logit scale,
    and what keeps w_c near its start. It is solved by L-BFGS with the analytic gradient: no random
    numbers are drawn. There is no constant term: the direction that all image features of a CLIP
    share serves as one.

    CoOp learns the text side too (Zhou et al., "Learning to Prompt for Vision-Language Models",
    IJCV 2022), but the words around the class's name, through the text tower. Here the embedding
    itself is learnt: training takes seconds and no text tower, and what is learnt need not be what
    any text says.

    Takes the arguments of `TextClassifier`, and:

    Args:
        penalty: Weight of what keeps the vectors near their start, at least 0; a large one leaves
            them there.
        image_weight: Share of the training images' mean in the start, in [0, 1]; 0 is text alone.
        max_iter: Most steps; 0 leaves the vectors at their start, which classifies by similarity to
            averages.

    Attributes:
        start_: The t_c, real first, shape ``(2, E)``.
        n_iter_: How many steps it took.
    """

    _: KW_ONLY
    penalty: float = 0.1
    image_weight: float = 0.0
    max_iter: int = 1000

    def _set_vectors(self, texts: Sides, features: Features, label: npt.ArrayLike | None) -> None:
        images = unit_rows(features)
        truth = _checked_label(label, len(images))
        share = self.image_weight
        self.start_ = np.stack(
            [
                unit_rows(
                    (1 - share) * _mean_unit(texts[side])
                    + share * _mean_unit(images[truth == side])
                )
                for side in (REAL, FAKE)
            ]
        )
        if not self.start_.any(axis=1).all():
            raise HeadError("the vectors of a class cancel out; choose another image_weight")
        self.n_iter_ = 0
        learnt = unit_rows(self._minimise(images, truth)) if self.max_iter else self.start_
        self.real_vectors_, self.fake_vectors_ = learnt[:1].copy(), learnt[1:].copy()

    def _minimise(self, images: Array, truth: npt.NDArray[np.int64]) -> Array:
        found = minimize(
            prototype_loss,
            self.start_.ravel(),
            args=(images, truth, self.start_, self.logit_scale_, self.penalty),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self.max_iter, "gtol": _TOLERANCE, "ftol": 0.0},
        )
        self.n_iter_ = int(found.nit)
        if found.nit >= self.max_iter:
            warnings.warn(
                f"LearnedText stopped after {found.nit} steps", ConvergenceWarning, stacklevel=2
            )
        return np.asarray(found.x).reshape(self.start_.shape)

    def _check_options(self) -> None:
        if not 0 <= self.penalty < math.inf:
            raise HeadError(f"penalty {self.penalty}: give a finite number that is at least 0")
        if not 0 <= self.image_weight <= 1:
            raise HeadError(f"image_weight {self.image_weight}: give a number in [0, 1]")
        if self.max_iter < 0:
            raise HeadError(f"max_iter {self.max_iter}: give a number that is at least 0")


def _checked_label(label: npt.ArrayLike | None, rows: int) -> npt.NDArray[np.int64]:
    truth = np.asarray(label)
    if truth.shape != (rows,) or set(np.unique(truth)) != {REAL, FAKE}:
        raise HeadError("labels: give 0 for real and 1 for fake, one an image, both of them there")
    return truth.astype(np.int64)


def prototype_loss(
    flat: Array,
    images: Array,
    truth: npt.NDArray[np.int64],
    start: Array,
    scale: float,
    penalty: float,
) -> tuple[float, Array]:
    """Compute what `LearnedText` minimises.

    Args:
        flat: The class vectors, real then fake, of any length, shape ``(2 * E,)``.
        images: Features of length 1, shape ``(N, E)``.
        truth: ``REAL`` or ``FAKE``, shape ``(N,)``.
        start: The vectors that the penalty draws to, of length 1, shape ``(2, E)``.
        scale: Factor between cosines and logits.
        penalty: Weight of the distance from the start.

    Returns:
        The loss, and its gradient by `flat`.
    """
    vectors = flat.reshape(start.shape)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / norm
    side = np.where(truth == FAKE, 1.0, -1.0)
    margin = side * scale * (images @ (unit[FAKE] - unit[REAL]))
    loss = np.logaddexp(0.0, -margin).mean() + penalty * (1 - (unit * start).sum(axis=1)).sum()
    pull = images.T @ (-side * expit(-margin)) * (scale / len(images))  # by unit[FAKE]
    by_unit = np.stack([-pull, pull]) - penalty * start
    by_vector = (by_unit - unit * (unit * by_unit).sum(axis=1, keepdims=True)) / norm
    return float(loss), by_vector.ravel()


def unit_rows(vectors: npt.ArrayLike) -> Array:
    """Scale rows to length 1; a row of zeros stays."""
    rows = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1.0))


def _mean_unit(units: Array) -> Array:
    """Average rows, and scale the mean to length 1."""
    return unit_rows(units.mean(axis=0))
