"""Cut the real images of the demo out of the photographs, at fixed places.

A window of 128 pixels becomes an image of 64: halving shows more of the scene, and washes out the
JPEG blocks that some of the photographs carry and no generator imitates.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from PIL import Image

from dfl.demo.photographs import Photograph, load_photograph

CROP_SIZE: Final = 64
"""Height and width of every image of the demo, in pixels."""

REDUCTION: Final = 2
"""How many pixels of the photograph, along each side, are averaged into one."""

CROPS_PER_PHOTOGRAPH: Final = 16
"""How many crops of a photograph every generator imitates."""

REALS_PER_IMITATION: Final = {"train": 3, "val": 1, "test": 1}
"""Three in training: there are three families, and a head should see as many real as generated
images. One elsewhere: each pair of real and generated images is then tested half and half."""

FLAT_STD: Final = 10.0
"""Where grey values (0 to 255) have a smaller standard deviation than this, there is only sky."""

FINEST_STRIDE: Final = 8
"""The closest that two windows may lie, in pixels of the reduced photograph."""


@dataclass(frozen=True)
class Crop:
    """One real image.

    Attributes:
        name: Where it was cut, ``x0096_y0032``, in pixels of the reduced photograph.
        image: The pixels, mode ``RGB``, ``CROP_SIZE`` square.
    """

    name: str
    image: Image.Image


@cache
def cut_crops(photograph: Photograph) -> tuple[Crop, ...]:
    """Cut all real crops of a photograph, the same ones every time.

    The windows lie on the widest grid that has enough crops with something on them; of these,
    as many as wanted are taken at equal steps in reading order.

    Args:
        photograph: Which one.

    Returns:
        ``CROPS_PER_PHOTOGRAPH`` crops, in training three times as many, from top to bottom.

    Raises:
        ConfigError: If the photograph is not installed.
    """
    reduced = load_photograph(photograph).reduce(REDUCTION)
    wanted = CROPS_PER_PHOTOGRAPH * REALS_PER_IMITATION[photograph.split]
    crops: list[Crop] = []
    for stride in range(CROP_SIZE, FINEST_STRIDE - 1, -FINEST_STRIDE):
        crops = _textured_crops(reduced, stride)
        if len(crops) >= wanted:
            break
    chosen = np.linspace(0, len(crops) - 1, min(wanted, len(crops))).round().astype(int)
    return tuple(crops[i] for i in chosen)


def imitated_crops(photograph: Photograph) -> tuple[Crop, ...]:
    """Return the crops that each generator imitates, in the order of the shipped sheets.

    Args:
        photograph: Which one.

    Returns:
        All of ``cut_crops``, but in training every third.

    Raises:
        ConfigError: If the photograph is not installed.
    """
    return cut_crops(photograph)[:: REALS_PER_IMITATION[photograph.split]]


def _textured_crops(reduced: Image.Image, stride: int) -> list[Crop]:
    """Cut every window of a centred grid that is not nearly flat."""
    crops = []
    for y in _grid(reduced.height, stride):
        for x in _grid(reduced.width, stride):
            image = reduced.crop((x, y, x + CROP_SIZE, y + CROP_SIZE))
            if np.asarray(image.convert("L")).std() >= FLAT_STD:
                crops.append(Crop(f"x{x:04d}_y{y:04d}", image))
    return crops


def _grid(length: int, stride: int) -> range:
    """Return the starts of the windows along one side, with equal margins at both ends."""
    margin = (length - CROP_SIZE) % stride // 2
    return range(margin, length - CROP_SIZE + 1, stride)
