"""Random training crops of the train photographs, for the generators."""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from dfl.demo.crops import CROP_SIZE, REDUCTION
from dfl.demo.photographs import PHOTOGRAPHS, load_photograph

REDUCTIONS: Final = (REDUCTION, REDUCTION, REDUCTION + 1)
"""Mostly the scale of the demo's crops, sometimes a smaller one: seven photographs are few."""


class RandomCrops:
    """An endless source of batches; no photograph of the val or test split is opened.

    Args:
        batch_size: Crops in a batch.
        generator: Source of positions, flips and colour swaps.
        crop_size: Height and width in pixels.
    """

    def __init__(
        self, batch_size: int, *, generator: torch.Generator, crop_size: int = CROP_SIZE
    ) -> None:
        self.batch_size = batch_size
        self.generator = generator
        self.crop_size = crop_size
        photographs = [load_photograph(p) for p in PHOTOGRAPHS if p.split == "train"]
        self.scenes = [to_tensor(np.asarray(p.reduce(r))) for p in photographs for r in REDUCTIONS]

    def draw(self) -> Tensor:
        """Draw a batch in [-1, 1], shape ``(batch_size, 3, crop_size, crop_size)``."""
        return torch.stack([self._draw_one() for _ in range(self.batch_size)])

    def _draw_one(self) -> Tensor:
        scene = self.scenes[self._below(len(self.scenes))]
        y = self._below(scene.shape[-2] - self.crop_size + 1)
        x = self._below(scene.shape[-1] - self.crop_size + 1)
        crop = scene[:, y : y + self.crop_size, x : x + self.crop_size]
        crop = crop[torch.randperm(3, generator=self.generator)]  # another palette
        if self._below(2):
            crop = crop.flip(-1)
        if self._below(2):
            crop = crop.transpose(-1, -2)
        return crop

    def _below(self, end: int) -> int:
        return int(torch.randint(end, (), generator=self.generator))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Turn 8-bit pixels ``(H, W, 3)`` into a float32 tensor ``(3, H, W)`` in [-1, 1]."""
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1.0
