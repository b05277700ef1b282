"""Augmentations: what happens to images on their way through the world.

Every setting is fixed when it is one number and drawn uniformly when it is a range of two, and is
applied with probability ``p``. All draws come from torch's generator, which the dataset seeds for
each image. Images are uint8, shape ``(..., 3, H, W)``, and keep their size unless `Resample` is
told otherwise.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional  # type: ignore[import-untyped]

from dfl.errors import ConfigError, ImageError

T = TypeVar("T")

LARGEST_JPEG: Final = 65_535
LARGEST_WEBP: Final = 16_383

Kernel = Literal["nearest", "area", "bilinear", "bicubic", "lanczos"]
KERNELS: Final[dict[Kernel, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

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
        return _to_levels(_blurred(image.float(), _draw(self.sigma)))


class UnsharpMask(Augmentation):
    """Sharpen: add to an image what a Gaussian blur takes away from it.

    Args:
        sigma: Standard deviation of the blur in pixels, as in `GaussianBlur`, or its range.
        amount: How much of the difference is added, at least 0, or its range; 1 doubles what the
            blur takes away.
        p: The probability.
    """

    def __init__(
        self,
        sigma: float | tuple[float, float] = 1.0,
        amount: float | tuple[float, float] = 1.0,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.sigma = _range("sigma", sigma, 0, float("inf"))
        self.amount = _range("amount", amount, 0, float("inf"))

    def apply(self, image: Tensor) -> Tensor:
        """Return the sharpened image."""
        values = image.float()
        lost = values - _blurred(values, _draw(self.sigma))
        return _to_levels(values + _draw(self.amount) * lost)


class GaussianNoise(Augmentation):
    """Add noise to every pixel and colour, independent and Gaussian, as of a sensor in the dark.

    Args:
        sigma: Standard deviation in levels of 8 bit (0 to 255), at least 0, or its range.
        p: The probability.
    """

    def __init__(self, sigma: float | tuple[float, float], p: float = 1.0) -> None:
        super().__init__(p)
        self.sigma = _range("sigma", sigma, 0, float("inf"))

    @property
    def is_random(self) -> bool:
        """The noise is."""
        return self.p > 0 and self.sigma[1] > 0

    def apply(self, image: Tensor) -> Tensor:
        """Return the noisy image."""
        return _to_levels(image + _draw(self.sigma) * torch.randn(image.shape))


class Resample(Augmentation):
    """Make an image smaller or larger, and bring it back to its size.

    By Pillow, which averages over all pixels that a smaller one covers, but for ``nearest``.

    Args:
        scale: The factor of both sides, above 0, or its range; a side is 1 pixel at least.
        kernel: How pixels are made of their neighbours (``area`` is their plain mean, Pillow's
            ``BOX``), or several, one of which is drawn for each way. All of them by default.
        keep_size: Whether the image is brought back to its size, with a kernel that is drawn anew,
            as a thumbnail that is shown large; otherwise it stays as it is, as a picture that was
            made smaller for a page.
        p: The probability.

    Raises:
        ConfigError: If there is no such kernel, or none is named.
    """

    def __init__(
        self,
        scale: float | tuple[float, float] = (0.5, 1.5),
        kernel: Kernel | list[Kernel] | None = None,
        keep_size: bool = True,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.scale = _range("scale", scale, 0, float("inf"))
        if self.scale[0] == 0:
            raise ConfigError(f"scale: must be above 0, got {scale}")
        self.kernel = kernel
        self.keep_size = keep_size
        self._kernels = _kernels(kernel)

    @property
    def is_random(self) -> bool:
        """Whether factor, kernel or application are drawn."""
        return super().is_random or len(self._kernels) > 1

    def apply(self, image: Tensor) -> Tensor:
        """Return the resampled image; of another size, unless that is kept."""
        scale = _draw(self.scale)
        size = [max(1, round(scale * side)) for side in image.shape[-2:]]
        ways = [size, list(image.shape[-2:])] if self.keep_size else [size]
        for height, width in ways:
            image = _each_plane(image, _resized(width, height, _one_of(self._kernels)))
        return image


def _kernels(kernel: Kernel | list[Kernel] | None) -> list[Kernel]:
    if kernel is None:
        return list(KERNELS)
    chosen: list[Kernel] = [kernel] if isinstance(kernel, str) else list(kernel)
    unknown = [name for name in chosen if name not in KERNELS]
    if unknown or not chosen:
        raise ConfigError(f"kernel: name one or several of {', '.join(KERNELS)}, got {kernel}")
    return chosen


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
        self.quality = _qualities(quality)

    def apply(self, image: Tensor) -> Tensor:
        """Return the recompressed image."""
        _check_sides(image, "JPEG", LARGEST_JPEG)
        quality = _draw_quality(self.quality)
        return _each_plane(image, _recompressed("JPEG", quality=quality, subsampling="4:2:0"))


class WebP(Augmentation):
    """Compress and decompress with libwebp, lossy.

    Args:
        quality: From 1 to 100, or its range, both ends included.
        p: The probability.
    """

    def __init__(self, quality: int | tuple[int, int], p: float = 1.0) -> None:
        super().__init__(p)
        self.quality = _qualities(quality)

    def apply(self, image: Tensor) -> Tensor:
        """Return the recompressed image."""
        _check_sides(image, "WebP", LARGEST_WEBP)
        return _each_plane(image, _recompressed("WebP", quality=_draw_quality(self.quality)))


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


class OneOf(Augmentation):
    """Apply one of several augmentations, all equally likely to be drawn.

    Args:
        transforms: The augmentations; the one that is drawn is applied with its own probability.
        p: The probability that one is drawn at all.

    Raises:
        ConfigError: If there is none.
    """

    def __init__(self, transforms: list[Augmentation], p: float = 1.0) -> None:
        super().__init__(p)
        if not transforms:
            raise ConfigError("transforms: none to draw from; name at least one")
        self.transforms = transforms

    @property
    def is_random(self) -> bool:
        """Whether there is a choice, or the only one is random."""
        several = len(self.transforms) > 1 and self.p > 0
        return several or super().is_random or self.transforms[0].is_random

    def apply(self, image: Tensor) -> Tensor:
        """Return the image as the one that is drawn leaves it."""
        return _one_of(self.transforms)(image)


class Degrade(Augmentation):
    """Let an image suffer what pictures suffer as they are passed on, each step by chance.

    In this order: it is resampled; blurred or sharpened; noise is added; it is compressed as JPEG
    or as WebP. The order is that in which a picture is made for a page; degradations that are drawn
    without regard to the class keep a head from learning how the files of a class were treated.

    Args:
        scale: As in `Resample`.
        keep_size: As in `Resample`.
        blur: The ``sigma`` of `GaussianBlur`.
        sharpen: The ``amount`` of `UnsharpMask`, whose ``sigma`` is drawn from 0.5 to 2.
        noise: The ``sigma`` of `GaussianNoise`.
        quality: Of JPEG and WebP alike.
        p_resample: The probability that it is resampled.
        p_filter: The probability that it is blurred or sharpened, half of it for each.
        p_noise: The probability of noise.
        p_compress: The probability that it is compressed, half of it for each.
        p: The probability of the whole.
    """

    def __init__(
        self,
        scale: float | tuple[float, float] = (0.5, 1.5),
        keep_size: bool = True,
        blur: float | tuple[float, float] = (0.2, 2.0),
        sharpen: float | tuple[float, float] = (0.3, 1.5),
        noise: float | tuple[float, float] = (1.0, 8.0),
        quality: int | tuple[int, int] = (50, 95),
        p_resample: float = 0.5,
        p_filter: float = 0.5,
        p_noise: float = 0.3,
        p_compress: float = 0.7,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.scale, self.keep_size, self.blur, self.sharpen = scale, keep_size, blur, sharpen
        self.noise, self.quality = noise, quality
        self.p_resample, self.p_filter = p_resample, p_filter
        self.p_noise, self.p_compress = p_noise, p_compress
        self._steps: list[Augmentation] = [
            Resample(scale, keep_size=keep_size, p=p_resample),
            OneOf([GaussianBlur(blur), UnsharpMask((0.5, 2.0), sharpen)], p=p_filter),
            GaussianNoise(noise, p=p_noise),
            OneOf([JPEG(quality), WebP(quality)], p=p_compress),
        ]

    @property
    def is_random(self) -> bool:
        """Whether anything about it is drawn."""
        return 0 < self.p < 1 or any(step.is_random for step in self._steps)

    def apply(self, image: Tensor) -> Tensor:
        """Return the degraded image."""
        for step in self._steps:
            image = step(image)
        return image


class WithDegraded(Augmentation):
    """Give an image twice, as it is and degraded, for a loss that compares the two.

    For the training of `dfl.heads.TuneTask`, as the last transform; the crop is the same for both.
    Whatever does not compare them takes the mean of their features, as of several crops.

    Args:
        transforms: What the second one goes through, in this order, such as `Degrade`; sizes have
            to be kept.

    Raises:
        ConfigError: If there is none.
    """

    def __init__(self, transforms: list[Augmentation]) -> None:
        super().__init__(1.0)
        if not transforms:
            raise ConfigError("transforms: none to degrade an image by; name at least one")
        self.transforms = transforms

    @property
    def is_random(self) -> bool:
        """Whether one of the transforms is."""
        return any(each.is_random for each in self.transforms)

    def apply(self, image: Tensor) -> Tensor:
        """Return both, shape ``(2, 3, H, W)``."""
        degraded = image
        for transform in self.transforms:
            degraded = transform(degraded)
        if degraded.shape != image.shape:
            raise ConfigError(
                f"transforms: the degraded image has the shape {list(degraded.shape)} and the "
                f"clean one {list(image.shape)}; take keep_size: true"
            )
        return torch.stack([image, degraded])


def _blurred(values: Tensor, sigma: float) -> Tensor:
    """Blur floats with a Gaussian."""
    for dim in (-1, -2):  # one side after the other: 2k products a pixel in place of k * k
        radius = min(int(TRUNCATE * sigma + 0.5), values.shape[dim] - 1)
        if radius > 0:
            kernel = [2 * radius + 1, 1] if dim == -1 else [1, 2 * radius + 1]
            values = functional.gaussian_blur(values, kernel, [sigma, sigma])
    return values


def _to_levels(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _each_plane(image: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Let Pillow change each image of ``(..., 3, H, W)``."""
    changed = []
    for plane in image.reshape(-1, *image.shape[-3:]):
        with change(Image.fromarray(plane.permute(1, 2, 0).contiguous().numpy())) as made:
            changed.append(torch.from_numpy(np.array(made)).permute(2, 0, 1))
    return torch.stack(changed).reshape(*image.shape[:-3], *changed[0].shape)


def _check_sides(image: Tensor, name: str, largest: int) -> None:
    if max(image.shape[-2:]) > largest:
        raise ImageError(
            f"an image of {image.shape[-1]} x {image.shape[-2]} pixels cannot be a {name}, whose "
            f"sides are at most {largest}; crop it before"
        )


def _recompressed(name: str, **options: int | str) -> Callable[[Image.Image], Image.Image]:
    def recompress(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, name, **options)
        return Image.open(stream)

    return recompress


def _resized(width: int, height: int, kernel: Kernel) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((width, height), KERNELS[kernel])


def _one_of(choices: Sequence[T]) -> T:
    """Draw one, where there is a choice."""
    return choices[0] if len(choices) == 1 else choices[int(torch.randint(len(choices), ()))]


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


def _qualities(quality: int | tuple[int, int]) -> tuple[int, int]:
    low, high = _range("quality", quality, 1, 100)
    return int(low), int(high)


def _draw_quality(limits: tuple[int, int]) -> int:
    low, high = limits
    return low if low == high else int(torch.randint(low, high + 1, ()))


def _draw(limits: tuple[float, float]) -> float:
    low, high = limits
    return low if low == high else low + (high - low) * float(torch.rand(()))
