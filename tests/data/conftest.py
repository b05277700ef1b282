from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Painter = Callable[..., Path]


@pytest.fixture
def paint(tmp_path: Path) -> Painter:
    """Write a small image that no other call writes, under the test's folder."""
    made = 0

    def paint_one(name: str, size: tuple[int, int] = (12, 10), seed: int | None = None) -> Path:
        nonlocal made
        made += 1
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(made if seed is None else 10_000 + seed)
        width, height = size
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        kind = None if path.suffix.lower() in Image.registered_extensions() else "PNG"
        Image.fromarray(pixels).save(path, format=kind)
        return path

    return paint_one


@pytest.fixture
def pair_root(tmp_path: Path, paint: Painter) -> Path:
    """A root with ``photos`` (20 reals), ``gan`` (20 fakes) and ``both`` (10 of each, by scene)."""
    for number in range(20):
        paint(f"root/photos/0_real/p{number:02}.png")
        paint(f"root/gan/1_fake/scene{number // 2}__{number}.png")
    for number in range(10):
        paint(f"root/both/0_real/s{number}_real_B.png")
        paint(f"root/both/1_fake/s{number}_fake_B.png")
    return tmp_path / "root"
