"""Augmentations: what happens to images on their way through the world.

Every setting is fixed when it is one number and drawn uniformly when it is a range of two, and is
applied with probability ``p``. All draws come from torch's generator, which the dataset seeds for
each image. Images are uint8, shape ``(..., 3, H, W)``, and keep their size.
"""

import io
from abc import ABC, abstractmethod
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional  # type: ignore[import-untyped]

from dfl.errors import ConfigError, ImageError

LARGEST_JPEG: Final = 65_535

TRUNCATE: Final = 4.0
"""How many standard deviations of a Gaussian are summed."""


class Augmentation(ABC):
    """A change that is applied to an image with a probability.

    Args:
        p: The probability, in [0, 1].

    Raises:
        ConfigError: If ``p`` is out of range.
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise ConfigError(f"p: a probability must be in [0, 1], got {p}")
        self.p = p

    def __call__(self, image: Tensor) -> Tensor:
        """Return the image, changed or not: uint8, shape ``(..., 3, H, W)``."""
        if self.p < 1 and float(torch.rand(())) >= self.p:
            return image
        return self.apply(image)

    @property
    def is_random(self) -> bool:
        """Whether anything about it is drawn."""
        limits = (value for value in vars(self).values() if isinstance(value, tuple))
        return 0 < self.p < 1 or any(low != high for low, high in limits)

    @abstractmethod
    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image: uint8, shape ``(..., 3, H, W)``."""


class GaussianBlur(Augmentation):
    """Blur with a Gaussian, mirrored at the edges.

    Args:
        sigma: Standard deviation in pixels, at least 0, or its range. The kernel reaches four of
            them to each side, or as far as the image allows.
        p: The probability.
    """

    def __init__(self, sigma: float | tuple[float, float], p: float = 1.0) -> None:
        super().__init__(p)
        self.sigma = _range("sigma", sigma, 0, float("inf"))

    def apply(self, image: Tensor) -> Tensor:
        """Return the blurred image."""
        sigma = _draw(self.sigma)
        values = image.float()
        for dim in (-1, -2):  # one side after the other: 2k products a pixel in place of k * k
            radius = min(int(TRUNCATE * sigma + 0.5), image.shape[dim] - 1)
            if radius > 0:
                kernel = [2 * radius + 1, 1] if dim == -1 else [1, 2 * radius + 1]
                values = functional.gaussian_blur(values, kernel, [sigma, sigma])
        return values.round().clamp(0, 255).to(torch.uint8)


class ColorJitter(Augmentation):
    """Change brightness, contrast, saturation and hue, in this order.

    Unlike in torchvision a single number is the factor itself, and 1 changes nothing.

    Args:
        brightness: Factor, at least 0, or its range; 0 is black.
        contrast: Factor, at least 0, or its range; 0 is grey.
        saturation: Factor, at least 0, or its range; 0 is black and white.
        hue: Turn of the colour circle, in [-0.5, 0.5], or its range.
        p: The probability.
    """

    def __init__(
        self,
        brightness: float | tuple[float, float] = 1.0,
        contrast: float | tuple[float, float] = 1.0,
        saturation: float | tuple[float, float] = 1.0,
        hue: float | tuple[float, float] = 0.0,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.brightness = _range("brightness", brightness, 0, float("inf"))
        self.contrast = _range("contrast", contrast, 0, float("inf"))
        self.saturation = _range("saturation", saturation, 0, float("inf"))
        self.hue = _range("hue", hue, -0.5, 0.5)

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image."""
        steps = (
            (functional.adjust_brightness, self.brightness, 1.0),
            (functional.adjust_contrast, self.contrast, 1.0),
            (functional.adjust_saturation, self.saturation, 1.0),
            (functional.adjust_hue, self.hue, 0.0),
        )
        for adjust, limits, neutral in steps:
            amount = _draw(limits)
            if amount != neutral:
                image = adjust(image, amount)
        return image


class JPEG(Augmentation):
    """Compress and decompress with libjpeg, colours at half resolution (4:2:0).

    By Pillow: torchvision's own transform rests on codecs that it is about to drop.

    Args:
        quality: From 1 to 100, or its range, both ends included.
        p: The probability.
    """

    def __init__(self, quality: int | tuple[int, int], p: float = 1.0) -> None:
        super().__init__(p)
        low, high = _range("quality", quality, 1, 100)
        self.quality = (int(low), int(high))

    def apply(self, image: Tensor) -> Tensor:
        """Return the recompressed image."""
        if max(image.shape[-2:]) > LARGEST_JPEG:
            raise ImageError(
                f"an image of {image.shape[-1]} x {image.shape[-2]} pixels cannot be a JPEG, whose "
                f"sides are at most {LARGEST_JPEG}; crop it before"
            )
        low, high = self.quality
        quality = low if low == high else int(torch.randint(low, high + 1, ()))
        planes = image.reshape(-1, *image.shape[-3:])  # (N, 3, H, W)
        return torch.stack([_recompress(plane, quality) for plane in planes]).reshape(image.shape)


class HorizontalFlip(Augmentation):
    """Mirror left and right.

    Args:
        p: The probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def apply(self, image: Tensor) -> Tensor:
        """Return the mirrored image."""
        flipped: Tensor = functional.horizontal_flip(image)
        return flipped


def _recompress(image: Tensor, quality: int) -> Tensor:
    stream = io.BytesIO()
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(stream) as reopened:
        return torch.from_numpy(np.array(reopened)).permute(2, 0, 1)


def _range(
    name: str, value: float | tuple[float, float], low: float, high: float
) -> tuple[float, float]:
    """Return a setting as a range that lies in [low, high], or raise a ConfigError."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    allowed = f"at least {low:g}" if high == float("inf") else f"in [{low:g}, {high:g}]"
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise ConfigError(
            f"{name}: must be a number {allowed}, or a range [from, to] of such, got {value}"
        )
    return pair[0], pair[1]


def _draw(limits: tuple[float, float]) -> float:
    low, high = limits
    return low if low == high else low + (high - low) * float(torch.rand(()))
