"""Geometry: how an image of any size becomes one or several squares."""

from abc import ABC, abstractmethod
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional  # type: ignore[import-untyped]

from dfl.errors import ConfigError

MAX_ASPECT: Final = 64
"""Beyond this aspect ratio the far ends are cut before resizing, as the centre crop does anyway."""


class Crop(ABC):
    """A choice of what a backbone sees of an image.

    Crop and resize give different detectors (resizing hides high frequencies, cropping hides
    content), so the choice is always explicit.

    Args:
        size: Height and width of the result, in pixels.

    Raises:
        ConfigError: If ``size`` is less than 1.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ConfigError(f"size: must be at least 1 pixel, got {size}")
        self.size = size

    @property
    def is_random(self) -> bool:
        """Whether anything about it is drawn."""
        return False

    @abstractmethod
    def __call__(self, image: Tensor) -> Tensor:
        """Return the square, or squares, of an image.

        Args:
            image: 8-bit RGB of any size, shape ``(3, H, W)``, uint8.

        Returns:
            Shape ``(3, size, size)``, or ``(V, 3, size, size)`` for several crops, uint8.
        """


class Resize(Crop):
    """Scale the shorter side to ``size`` and cut the square in the middle, as CLIP was trained.

    Bicubic with antialiasing.

    Args:
        size: Height and width of the result, in pixels.
    """

    def __call__(self, image: Tensor) -> Tensor:
        """Return one square, shape ``(3, size, size)``."""
        reach = MAX_ASPECT * min(image.shape[-2:])
        height, width = (min(side, reach) for side in image.shape[-2:])
        image = _window(image, _middle(image, height, width), height, width)
        image = _bicubic(image, [self.size])
        return _window(image, _middle(image, self.size, self.size), self.size, self.size)


class Squash(Crop):
    """Scale the whole image to a square, whatever its aspect ratio; bicubic with antialiasing.

    Args:
        size: Height and width of the result, in pixels.
    """

    def __call__(self, image: Tensor) -> Tensor:
        """Return one square, shape ``(3, size, size)``."""
        return _bicubic(image, [self.size, self.size])


class CenterCrop(Crop):
    """Cut the square in the middle; no pixel is resampled.

    An image that is smaller is continued by its mirror image, on both ends.

    Args:
        size: Height and width of the result, in pixels.
    """

    def __call__(self, image: Tensor) -> Tensor:
        """Return one square, shape ``(3, size, size)``."""
        image = _at_least(image, self.size)
        return _window(image, _middle(image, self.size, self.size), self.size, self.size)


class RandomCrop(Crop):
    """Cut a square anywhere, drawn from torch's generator; no pixel is resampled.

    A smaller image is continued as in ``CenterCrop``.

    Args:
        size: Height and width of the result, in pixels.
    """

    @property
    def is_random(self) -> bool:
        """The place is."""
        return True

    def __call__(self, image: Tensor) -> Tensor:
        """Return one square, shape ``(3, size, size)``."""
        image = _at_least(image, self.size)
        height, width = image.shape[-2:]
        top = int(torch.randint(height - self.size + 1, ()))
        left = int(torch.randint(width - self.size + 1, ()))
        return _window(image, (top, left), self.size, self.size)


class MultiCrop(Crop):
    """Cut several squares, whose features are averaged; no pixel is resampled.

    A smaller image is continued as in ``CenterCrop``.

    Args:
        size: Height and width of each square, in pixels.
        count: 5 for the corners and the middle; 4 or 9 for a grid of two or three rows, evenly
            placed from edge to edge.
    """

    def __init__(self, size: int, count: Literal[4, 5, 9] = 5) -> None:
        super().__init__(size)
        if count not in (4, 5, 9):
            raise ConfigError(f"count: must be 4, 5 or 9, got {count}")
        self.count = count

    def __call__(self, image: Tensor) -> Tensor:
        """Return squares in reading order, the middle last, shape ``(count, 3, size, size)``."""
        image = _at_least(image, self.size)
        height, width = (side - self.size for side in image.shape[-2:])
        rows = 3 if self.count == 9 else 2
        places = [
            (round(height * row / (rows - 1)), round(width * column / (rows - 1)))
            for row in range(rows)
            for column in range(rows)
        ]
        if self.count == 5:
            places.append(_middle(image, self.size, self.size))
        return torch.stack([_window(image, place, self.size, self.size) for place in places])


class TexturedCrops(Crop):
    """Cut the squares with the most texture, whose features are averaged; no pixel is resampled.

    Smooth parts, such as sky, hold little of what a generator leaves behind (Konstantinidou,
    Koutlis and Papadopoulos, TextureCrop, 2024). The squares are chosen from the smallest grid that
    covers the image from edge to edge, by the mean difference of brightness between neighbouring
    pixels. An image whose grid has fewer squares gives them again, in the same order; a smaller
    image is continued as in ``CenterCrop``.

    Args:
        size: Height and width of each square, in pixels.
        count: How many squares.

    Raises:
        ConfigError: If ``count`` is less than 1.
    """

    def __init__(self, size: int, count: int = 5) -> None:
        super().__init__(size)
        if count < 1:
            raise ConfigError(f"count: must be at least 1, got {count}")
        self.count = count

    def __call__(self, image: Tensor) -> Tensor:
        """Return squares, the most textured first, shape ``(count, 3, size, size)``."""
        image = _at_least(image, self.size)
        rows, columns = (_covering(side, self.size) for side in image.shape[-2:])
        grid = [(row, column) for row in rows for column in columns]
        squares = [_window(image, place, self.size, self.size) for place in grid]
        # sorted is stable: of equally textured ones the first in reading order
        best = sorted(squares, key=_texture, reverse=True)
        return torch.stack([best[place % len(best)] for place in range(self.count)])


class MultiScale(Crop):
    """Cut squares of several sizes from the middle, whose features are averaged.

    The smallest shows pixels as they are, the larger ones show more of the content, resized to the
    same square (bicubic with antialiasing).

    Args:
        size: Height and width of each result, in pixels.
        reach: The side of each square in the image over ``size``, at least 1; one that is larger
            than the image is the largest that it has. A smaller image is continued as in
            ``CenterCrop``.

    Raises:
        ConfigError: If there is no reach, or one is less than 1.
    """

    def __init__(self, size: int, reach: list[float] | None = None) -> None:
        super().__init__(size)
        self.reach = [1.0, 2.0] if reach is None else list(reach)
        if not self.reach or min(self.reach) < 1:
            raise ConfigError(f"reach: give numbers of at least 1, got {reach}")

    def __call__(self, image: Tensor) -> Tensor:
        """Return a square for each reach, shape ``(len(reach), 3, size, size)``."""
        image = _at_least(image, self.size)
        squares = []
        for reach in self.reach:
            side = min(round(reach * self.size), *image.shape[-2:])
            square = _window(image, _middle(image, side, side), side, side)
            squares.append(square if side == self.size else _bicubic(square, [self.size] * 2))
        return torch.stack(squares)


def _covering(side: int, size: int) -> list[int]:
    """Say where squares begin that cover a side from edge to edge, as few as do."""
    count = -(-side // size)
    return [round((side - size) * place / max(1, count - 1)) for place in range(count)]


def _texture(square: Tensor) -> int:
    """Sum up differences of brightness between neighbours, exactly."""
    brightness = square.sum(dim=0, dtype=torch.int64)
    return sum(int(brightness.diff(dim=dim).abs().sum()) for dim in (0, 1))


def _middle(image: Tensor, height: int, width: int) -> tuple[int, int]:
    return round((image.shape[-2] - height) / 2), round((image.shape[-1] - width) / 2)


def _window(image: Tensor, place: tuple[int, int], height: int, width: int) -> Tensor:
    top, left = place
    return image[..., top : top + height, left : left + width].contiguous()


def _bicubic(image: Tensor, size: list[int]) -> Tensor:
    resized: Tensor = functional.resize(image, size, InterpolationMode.BICUBIC, antialias=True)
    return resized


def _at_least(image: Tensor, size: int) -> Tensor:
    """Continue an image by reflection until both sides are ``size`` or more."""
    for dim in (-2, -1):
        missing = size - image.shape[dim]
        if missing > 0:
            before = missing // 2
            # numpy reflects as often as it takes, where torch stops at one image width.
            order = np.pad(np.arange(image.shape[dim]), (before, missing - before), mode="reflect")
            image = image.index_select(dim, torch.from_numpy(order))
    return image
