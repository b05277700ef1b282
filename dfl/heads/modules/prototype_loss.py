"""The loss of class vectors that images are compared with by cosine."""

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from dfl.types import FAKE, REAL

__all__ = ["prototype_loss"]

Array = npt.NDArray[np.float64]


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
