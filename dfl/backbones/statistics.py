"""A backbone without weights: statistics of the pixels, in which generators leave traces.

What is counted is counted in whole numbers, so that no order of adding changes it: neither the
batch, nor threads, nor the device.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from dfl.backbones.base import Backbone
from dfl.errors import BackboneError

LAYERS: Final = ("residual", "differences", "dct")
SMALLEST: Final = 16
"""The smallest side of an image, in pixels."""

_SIZE: Final = 224  # of the image that finds the dimensions; no other one is resized
_VERSION: Final = 1  # part of the fingerprint: change it when a value below changes

Kernel = tuple[tuple[int, ...], ...]
# High-pass filters of the spatial rich model, and the size of each one's central value. Those that
# are no square are used upright as well.
_KERNELS: Final[tuple[tuple[Kernel, int], ...]] = (
    (((-1, 1),), 1),
    (((1, -2, 1),), 2),
    (((1, -3, 3, -1),), 3),
    (((-1, 2, -1), (2, -4, 2), (-1, 2, -1)), 4),
    (
        (
            (-1, 2, -2, 2, -1),
            (2, -6, 8, -6, 2),
            (-2, 8, -12, 8, -2),
            (2, -6, 8, -6, 2),
            (-1, 2, -2, 2, -1),
        ),
        12,
    ),
)
_REACH: Final = 2  # residuals are truncated to -2 .. 2 before two neighbours are counted together
_SIDES: Final = 2 * _REACH + 1
_SIZES: Final = (1, 2, 4, 8, 16, 32)
BLOCK: Final = 8
_ROUNDING: Final = 1 / 12  # variance of what rounding to 8 bits adds


class PixelStatistics(Backbone):
    """Noise residuals, differences of neighbours and DCT energies of an image, as it is.

    An image is never resized, whatever its size; a crop without resampling (`CenterCrop`,
    `RandomCrop`, `MultiCrop`) keeps its traces. There is nothing in it that a compiler or a lower
    precision would make faster: it runs in float32 on any engine. Each of the RGB channels is
    described alike; nothing says how bright or what colour it is. A share is given as the logarithm
    of ``(count + 1/2) / (total + 1)``, which is finite where nothing is counted.

    ``residual`` (240 values): five high-pass filters of the spatial rich model (Fridrich and
    Kodovsky, "Rich models for steganalysis of digital images", IEEE TIFS 2012): differences of
    first, second and third order, both ways, and the squares of 3x3 and 5x5. Residuals are divided
    by the size of the filter's central value. For each filter and channel: the shares of residuals
    that are 0 and that reach 1, 2, 4, 8, 16 and 32 in size; and the shares of pairs of neighbours
    that are the same two numbers, rounded and truncated to -2 .. 2, up to order and sign (9).

    ``differences`` (180 values): neighbouring pixel relationships (Tan et al., "Rethinking the
    up-sampling operations in CNN-based generative networks", CVPR 2024): in cells of 2x2 pixels
    what differs from the upper left one, that is from the image after nearest-neighbour down- and
    up-sampling. For each channel: the shares of sizes, as above, at the right, below, and across;
    and the shares of pairs of the first two, as above. Of each share the mean over the four places
    where the cells may begin, and its range over them, in which up-sampling shows.

    ``dct`` (378 values): energies of the discrete cosine transform (Frank et al., "Leveraging
    frequency analysis for deep fake image recognition", ICML 2020), in blocks of 8x8 from the upper
    left: for each channel and each of the 63 frequencies above 0 the logarithm of the squared
    coefficient (with the 1/12 added that rounding to 8 bits leaves), its mean over the blocks, and
    then its standard deviation.

    Args:
        layers: Of ``residual``, ``differences`` and ``dct``; None is all three.

    Raises:
        BackboneError: If there is no such layer.
    """

    def __init__(self, layers: list[str] | None = None) -> None:
        super().__init__(
            nn.Identity(),
            _checked(LAYERS if layers is None else layers),
            architecture=f"dfl:pixel-statistics:{_VERSION}",
            input_size=_SIZE,
            mean=(0, 0, 0),
            std=(1, 1, 1),
        )

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the statistics.

        Args:
            image: RGB in [0, 1], ``(B, 3, H, W)``, float32.

        Returns:
            ``(B, D)`` by layer, float32.
        """
        pixels = (image * 255).round().to(torch.int16)
        of_layer = {"residual": _residual, "differences": _differences, "dct": _dct}
        return {name: of_layer[name](pixels).flatten(1) for name in self.layers}

    def _preprocess(self, image: Tensor) -> Tensor:
        """Scale uint8 ``(N, 3, H, W)``, and leave its size."""
        return image.to(torch.float32) / 255

    def _warn_of_small(self, image: Tensor) -> None:
        height, width = image.shape[-2:]
        if min(height, width) < SMALLEST:
            raise BackboneError(
                f"an image of {width}x{height} px has too few pixels for statistics of them; make "
                f"the crop {SMALLEST} px at least"
            )


def _checked(layers: Sequence[str]) -> Sequence[str]:
    if not layers or not set(layers) <= set(LAYERS) or len(set(layers)) < len(layers):
        raise BackboneError(
            f"PixelStatistics has no layers {list(layers)}; it offers {', '.join(LAYERS)}, each "
            "once"
        )
    return layers


def _residual(pixels: Tensor) -> Tensor:
    """Describe the filters' residuals, ``(N, 3, 80)``."""
    values = []
    for kernel, unit in _KERNELS:
        upright = tuple(zip(*kernel, strict=True))
        maps = [_filtered(pixels, each) for each in dict.fromkeys((kernel, upright))]
        rounded = [_truncated(each, unit) for each in maps]
        pairs = [(each[..., :-1], each[..., 1:]) for each in rounded]
        pairs += [(each[..., :-1, :], each[..., 1:, :]) for each in rounded]
        values += [_sizes(maps, unit), _pairs(pairs)]
    return torch.cat(values, dim=2)


def _differences(pixels: Tensor) -> Tensor:
    """Describe the differences in cells of 2x2, ``(N, 3, 60)``."""
    height, width = ((side - 1) // 2 * 2 for side in pixels.shape[-2:])
    of_places = []
    for top, left in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cells = pixels[..., top : top + height, left : left + width]
        first = cells[..., ::2, ::2]
        right = cells[..., ::2, 1::2] - first
        below = cells[..., 1::2, ::2] - first
        across = cells[..., 1::2, 1::2] - first
        values = [_sizes([each], 1) for each in (right, below, across)]
        values.append(_pairs([(_truncated(right, 1), _truncated(below, 1))]))
        of_places.append(torch.cat(values, dim=2))
    shares = torch.stack(of_places)
    return torch.cat([shares.mean(dim=0), shares.amax(dim=0) - shares.amin(dim=0)], dim=2)


def _dct(pixels: Tensor) -> Tensor:
    """Describe the frequencies in blocks of 8x8, ``(N, 3, 126)``."""
    images, channels, height, width = pixels.shape
    rows, columns = height // BLOCK, width // BLOCK
    whole = pixels[..., : rows * BLOCK, : columns * BLOCK].to(torch.float32)
    blocks = whole.reshape(images, channels, rows, BLOCK, columns, BLOCK)
    # place in the block first: its row and its column; then (N, 3, blocks)
    values = blocks.permute(3, 5, 0, 1, 2, 4).flatten(4).contiguous()
    across = torch.stack(_cosines(values.unbind(1)), dim=1)
    both = torch.stack(_cosines(across.unbind(0)))
    energy = (both.flatten(0, 1)[1:].square() + _ROUNDING).log()
    spread, mean = torch.std_mean(energy, dim=3, correction=0)
    return torch.cat([mean, spread]).permute(1, 2, 0)


def _cosines(values: Sequence[Tensor]) -> list[Tensor]:
    """Transform along eight values, which are tensors.

    Multiplied and added one by one: a product of matrices rounds as its size has it.
    """
    found = []
    for frequency in range(BLOCK):
        scale = math.sqrt((1 if frequency == 0 else 2) / BLOCK)
        total = torch.zeros_like(values[0])
        for place, value in enumerate(values):
            turn = math.pi * (2 * place + 1) * frequency / (2 * BLOCK)
            total = total + value * (scale * math.cos(turn))
        found.append(total)
    return found


def _filtered(pixels: Tensor, kernel: Kernel) -> Tensor:
    """Correlate with a filter where all of it is on the image; whole numbers, int16."""
    height = pixels.shape[-2] - len(kernel) + 1
    width = pixels.shape[-1] - len(kernel[0]) + 1
    total = pixels.new_zeros((*pixels.shape[:-2], height, width))
    for top, row in enumerate(kernel):
        for left, weight in enumerate(row):
            total += weight * pixels[..., top : top + height, left : left + width]
    return total


def _truncated(residual: Tensor, unit: int) -> Tensor:
    """Round a residual in its unit and truncate it; -2 is 0, 2 is 4."""
    rounded = torch.round(residual.to(torch.float32) / unit)
    return rounded.clamp(-_REACH, _REACH).to(torch.int16) + _REACH


def _sizes(residuals: Sequence[Tensor], unit: int) -> Tensor:
    """Give the shares of residuals that are 0, and that reach each of the sizes; ``(N, 3, 7)``."""
    sizes = [residual.abs() for residual in residuals]
    # 0 for none, 1 for less than a unit, then one more for each unit
    steps = [torch.div(each, unit, rounding_mode="floor") + (each > 0) for each in sizes]
    counts = _counted([each.clamp(max=_SIZES[-1] + 1) for each in steps], _SIZES[-1] + 2)
    at_least = counts.flip(2).cumsum(2).flip(2)
    wanted = torch.cat([counts[..., :1], at_least[..., [size + 1 for size in _SIZES]]], dim=2)
    return _log_share(wanted, at_least[..., :1])


def _pairs(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Give the shares of pairs that are the same up to order and sign; ``(N, 3, 9)``."""
    counts = _counted([_SIDES * first + second for first, second in pairs], _SIDES**2)
    alike = torch.stack([counts[..., kinds].sum(dim=2) for kinds in _ALIKE], dim=2)
    return _log_share(alike, counts.sum(dim=2, keepdim=True))


def _alike() -> list[list[int]]:
    """List the pairs that turn into each other by order and sign, by their numbers."""
    found: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for number in range(_SIDES**2):
        a, b = number // _SIDES - _REACH, number % _SIDES - _REACH
        found.setdefault(tuple(sorted([(a, b), (b, a), (-a, -b), (-b, -a)])), []).append(number)
    return list(found.values())


_ALIKE: Final = _alike()


def _counted(values: Sequence[Tensor], bins: int) -> Tensor:
    """Count whole numbers below ``bins`` in each channel of each image; ``(N, 3, bins)``."""
    together = torch.cat([each.flatten(2) for each in values], dim=2)
    images, channels, _ = together.shape
    rows = torch.arange(images * channels, dtype=torch.int32, device=together.device)
    numbered = together.reshape(images * channels, -1) + bins * rows[:, None]
    counts = torch.bincount(numbered.flatten(), minlength=images * channels * bins)
    return counts.reshape(images, channels, bins)


def _log_share(count: Tensor, total: Tensor) -> Tensor:
    return torch.log((count + 0.5).to(torch.float32) / (total + 1))
