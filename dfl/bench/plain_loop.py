"""The loop that `bench` is held against: features as most published detectors compute them.

Pillow decodes in two workers, torchvision's transforms make float32 tensors, and a frozen network
sees batches of 32 in float32, one operation on all cores at a time.
"""

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms  # type: ignore[import-untyped]

from dfl.backbones import Backbone, FusedBackbone
from dfl.data.containers.content import read_bytes

_BATCH: Final = 32
_WORKERS: Final = 2


class _PlainImages(Dataset[Tensor]):
    """Image files as normalised float32 tensors.

    Args:
        files: The images.
        backbone: Whose input size and normalisation are taken.
    """

    def __init__(self, files: Sequence[Path], backbone: Backbone) -> None:
        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.Resize(
                    backbone.input_size, interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.CenterCrop(backbone.input_size),
                transforms.ToTensor(),
                transforms.Normalize(backbone.mean, backbone.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(io.BytesIO(read_bytes(self.files[index]))) as image:
            return cast(Tensor, self.transform(image.convert("RGB")))


def plain_loop(backbone: FusedBackbone, files: Sequence[Path]) -> float:
    """Time the plain loop, one pass over the images for every backbone.

    Args:
        backbone: The backbones, in float32.
        files: The images.

    Returns:
        Seconds, from the first image asked for to the last feature.
    """
    start = time.perf_counter()
    for member in backbone.backbones.children():
        network = cast(Backbone, member)
        loader = DataLoader(
            _PlainImages(files, network), batch_size=_BATCH, num_workers=_WORKERS, shuffle=False
        )
        device = next(network.network.parameters()).device
        with torch.no_grad():
            for batch in loader:
                for features in network.encode(batch.to(device)).values():
                    features.cpu()
    return time.perf_counter() - start
