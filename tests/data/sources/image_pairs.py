"""Pairs of image files that differ in format, size or quality as a test asks for."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(
    folder: Path, count: int, *, size=(48, 32), ending="jpg", seed=0, **options
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        shape = size(number) if callable(size) else size
        pixels = rng.integers(0, 256, (shape[1], shape[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.{ending}", **options)


def write_pair(root: Path, name: str, real: dict, fake: dict, count: int = 12) -> None:
    write_images(root / name / "0_real", count, **real)
    write_images(root / name / "1_fake", count, seed=1, **fake)
