"""Have a generator imitate every crop, and write the sheets that the package ships."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dfl.demo.crops import CROP_SIZE, imitated_crops
from dfl.demo.generators.batches import to_tensor
from dfl.demo.generators.imitator import Imitator
from dfl.demo.photographs import PHOTOGRAPHS, Photograph


def write_sheets(
    imitator: Imitator,
    folder: Path,
    photographs: Sequence[Photograph] = PHOTOGRAPHS,
    *,
    seed: int,
) -> list[Path]:
    """Write one lossless PNG a photograph, its imitations below each other.

    Args:
        imitator: A trained generator.
        folder: Where the files go, ``<photograph>.png``.
        photographs: Whose crops are imitated.
        seed: Of the noise.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for photograph in photographs:
        images = imitate_photograph(imitator, photograph, seed=seed)
        sheet = Image.new("RGB", (CROP_SIZE, CROP_SIZE * len(images)))
        for i, image in enumerate(images):
            sheet.paste(image, (0, CROP_SIZE * i))
        # a grey sheet is stored with one channel: it is a third of the bytes, and reads the same
        stored = sheet.convert("L") if photograph.is_grey else sheet
        path = folder / f"{photograph.name}.png"
        partial = path.with_suffix(".partial")
        stored.save(partial, format="PNG", optimize=True)
        partial.replace(path)
        paths.append(path)
    return paths


def imitate_photograph(
    imitator: Imitator, photograph: Photograph, *, seed: int
) -> list[Image.Image]:
    """Imitate the crops of one photograph.

    Args:
        imitator: A trained generator.
        photograph: Whose crops; without colour if it has none.
        seed: Of the noise.

    Returns:
        As many images as ``imitated_crops`` returns, in the same order, mode ``RGB``.
    """
    crops = [np.asarray(crop.image) for crop in imitated_crops(photograph)]
    real = torch.stack([to_tensor(pixels) for pixels in crops])
    generator = torch.Generator().manual_seed(seed)
    drawn = imitator.imitate(real, generator=generator)
    if photograph.is_grey:
        drawn = drawn.mean(dim=1, keepdim=True).expand_as(drawn)
    return [_to_image(one) for one in match_exposure(drawn, real)]


def match_exposure(drawn: Tensor, real: Tensor) -> Tensor:
    """Give generated images the brightness and contrast of the crops they imitate.

    A blurred imitation has less contrast than the real crop; without this, a histogram would do
    as a detector.

    Args:
        drawn: Generated images in [-1, 1], shape ``(B, 3, H, W)``.
        real: The crops, same shape.

    Returns:
        ``drawn`` with the mean and standard deviation that ``real`` has in each channel,
        clipped to [-1, 1].
    """
    mean = drawn.mean(dim=(-2, -1), keepdim=True)
    std = drawn.std(dim=(-2, -1), keepdim=True).clamp(min=1e-4)
    target_mean = real.mean(dim=(-2, -1), keepdim=True)
    target_std = real.std(dim=(-2, -1), keepdim=True)
    return ((drawn - mean) / std * target_std + target_mean).clamp(-1.0, 1.0)


def _to_image(drawn: Tensor) -> Image.Image:
    pixels = ((drawn + 1.0) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())
