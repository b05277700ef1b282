"""Mixing copies with their photographs, so that a detector cannot go by the whole image alone.

After Dual Data Alignment (Chen et al., "Dual Data Alignment Makes AI-Generated Image Detector
Easier Generalizable", 2025), which mixes in pixels and in frequencies.
"""

import hashlib
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dfl.errors import ConfigError

Range = tuple[float, float]
Patches = npt.NDArray[np.uint8]

_HIGHEST: Final = 0.5  # cycles a pixel


@dataclass(frozen=True)
class Draw:
    """What was drawn for one copy.

    Attributes:
        band: From which radius of the spectrum to which it is the photograph's, in [0, 1] of that
            of the corners; None for none.
        share: How much of the photograph is added to it, in [0, 1]; 0 for nothing.
        patches: 1 where a patch is the copy's, 0 where it is the photograph's, shape (rows,
            columns); None where it is not mixed by patches.
    """

    band: Range | None
    share: float
    patches: Patches | None

    def __str__(self) -> str:
        """Say it in a few words; empty where nothing is mixed."""
        said = []
        if self.band is not None:
            said.append(f"band {self.band[0]:.3f}-{self.band[1]:.3f}")
        if self.share:
            said.append(f"pixels {self.share:.3f}")
        if self.patches is not None:
            said.append(f"patches {1 - self.patches.mean():.3f}")
        return ", ".join(said)


class Mixing:
    """Mix copies with their photographs: in frequency bands, in pixels, by patches, in this order.

    Each is drawn by itself for each copy, from the seed, the reconstructor's name and the
    photograph's path.

    Args:
        pixels: The probability of mixing in pixels, in [0, 1].
        share: The share of the photograph then, a range in [0, 1].
        bands: The probability of taking a band of frequencies from the photograph: those between
            two radii that are drawn, from the mean to the corners of the spectrum.
        patches: The probability of taking some patches from the photograph.
        patch: The side of a patch in pixels.
        patch_share: The share of the photograph's patches then, a range in [0, 1].

    Raises:
        ConfigError: If a setting is out of range.
    """

    def __init__(
        self,
        pixels: float = 0.2,
        share: tuple[float, float] = (0.0, 0.8),
        bands: float = 0.2,
        patches: float = 0.0,
        patch: int = 32,
        patch_share: tuple[float, float] = (0.25, 0.75),
    ) -> None:
        for name, p in {"pixels": pixels, "bands": bands, "patches": patches}.items():
            if not 0 <= p <= 1:
                raise ConfigError(f"mixing.{name}: a probability must be in [0, 1], got {p}")
        for name, (low, high) in {"share": share, "patch_share": patch_share}.items():
            if not 0 <= low <= high <= 1:
                raise ConfigError(
                    f"mixing.{name}: must be a range [from, to] in [0, 1], got {[low, high]}"
                )
        if patch < 1:
            raise ConfigError(f"mixing.patch: must be at least 1 pixel, got {patch}")
        self.pixels = pixels
        self.share = share
        self.bands = bands
        self.patches = patches
        self.patch = patch
        self.patch_share = patch_share

    def draw(self, seed: int, name: str, path: str, height: int, width: int) -> Draw:
        """Draw what becomes of a copy.

        Args:
            seed: The run's.
            name: The reconstructor's name.
            path: The photograph, as its manifest has it.
            height: Height of the copy in pixels.
            width: Its width.
        """
        digest = hashlib.blake2b(f"{seed}:{name}:{path}".encode(), digest_size=8).digest()
        rng = Random(int.from_bytes(digest, "big"))
        # all numbers are drawn in any case, so that no probability changes what another one draws
        happens = [rng.random() for _ in range(3)]
        ends = sorted((rng.random(), rng.random()))
        share, patch_share = rng.uniform(*self.share), rng.uniform(*self.patch_share)
        rows, columns = (-(-side // self.patch) for side in (height, width))
        order = [rng.random() for _ in range(rows * columns)]
        of_photograph = np.argsort(order, kind="stable")[: round(patch_share * len(order))]
        patches = np.ones(rows * columns, dtype=np.uint8)
        patches[of_photograph] = 0
        return Draw(
            band=(ends[0], ends[1]) if happens[0] < self.bands else None,
            share=share if happens[1] < self.pixels else 0.0,
            patches=patches.reshape(rows, columns) if happens[2] < self.patches else None,
        )

    def mix(self, copy: Tensor, photograph: Tensor, draw: Draw) -> Tensor:
        """Mix a copy with its photograph.

        Args:
            copy: uint8, ``(3, h, w)``.
            photograph: The same.
            draw: What was drawn for it.

        Returns:
            uint8, ``(3, h, w)``.
        """
        mixed, real = copy.float(), photograph.float()
        if draw.band is not None:
            mixed = _with_band(mixed, real, draw.band)
        if draw.share:
            mixed = torch.lerp(mixed, real, draw.share)
        if draw.patches is not None:
            is_copy = torch.from_numpy(draw.patches).bool()
            is_copy = is_copy.repeat_interleave(self.patch, 0).repeat_interleave(self.patch, 1)
            height, width = copy.shape[-2:]
            mixed = torch.where(is_copy[:height, :width], mixed, real)
        return mixed.round().clamp(0, 255).to(torch.uint8)


def _with_band(mixed: Tensor, real: Tensor, band: Range) -> Tensor:
    """Take a band of frequencies from another image; radii as shares of that of the corners."""
    height, width = mixed.shape[-2:]
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :]
    radius = torch.hypot(down, across) / (_HIGHEST * 2**0.5)
    taken = (radius >= band[0]) & (radius <= band[1])
    spectrum = torch.where(taken, torch.fft.rfft2(real), torch.fft.rfft2(mixed))
    image: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return image
