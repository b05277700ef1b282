"""What part of a photograph is drawn again: never one that was resized."""

from typing import Final

from torch import Tensor

CELL: Final = 16
"""A JPEG's blocks lie on a grid of 8 pixels, those of halved colours on one of 16: a crop that
begins on it keeps them where they were."""


def native_crop(image: Tensor, unit: int, most: int | None = None) -> Tensor | None:
    """Cut an image to sides that a network takes; no pixel is resampled.

    The middle is kept, as nearly as the grid of a JPEG's blocks allows.

    Args:
        image: ``(3, H, W)``.
        unit: What the sides have to be multiples of, in pixels.
        most: The longest side that may remain, in pixels, at least the unit; None for any.

    Returns:
        ``(3, h, w)``, contiguous; None where a side is shorter than the unit.
    """
    for dim in (-2, -1):
        side = image.shape[dim]
        kept = (side if most is None else min(side, most)) // unit * unit
        if kept == 0:
            return None
        image = image.narrow(dim, (side - kept) // 2 // CELL * CELL, kept)
    return image.contiguous()
