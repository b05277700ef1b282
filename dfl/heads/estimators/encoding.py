"""The arithmetic of a bottleneck's encoder in numpy: standardise, then linear layers and GELU."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import erf

__all__ = ["encode_rows"]

Array = npt.NDArray[np.float32]

_EPS: Final = 1e-5  # what the bottleneck adds to the variance before the root
_BLOCK: Final = 8192  # rows at a time: what lies between the layers need not fit in memory


def encode_rows(
    features: npt.NDArray[np.number],
    mean: Array,
    variance: Array,
    weights: Sequence[Array],
    biases: Sequence[Array],
) -> Array:
    """Encode features.

    Args:
        features: Shape ``(N, D)``; a memory map is read block by block.
        mean: Of the training features, shape ``(D,)``.
        variance: Of the training features, shape ``(D,)``.
        weights: One matrix a linear layer, shape ``(out, in)``; exact GELU is between the layers.
        biases: One vector a linear layer, shape ``(out,)``.

    Returns:
        The code, shape ``(N, out of the last layer)``, float32.
    """
    code = np.empty((len(features), len(biases[-1])), dtype=np.float32)
    spread = np.sqrt(variance + _EPS)
    for start in range(0, len(features), _BLOCK):
        rows = slice(start, start + _BLOCK)
        hidden = (np.asarray(features[rows], dtype=np.float32) - mean) / spread
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = (_gelu(hidden) if i else hidden) @ weight.T + bias
        code[rows] = hidden
    return code


def _gelu(hidden: Array) -> Array:
    root_half = np.float32(np.sqrt(0.5))
    return np.asarray(hidden * np.float32(0.5) * (1 + erf(hidden * root_half)), dtype=np.float32)
