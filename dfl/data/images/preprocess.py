"""What an image goes through before a backbone: transforms and a crop, reproducible by its path."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from dfl.data.images.crops import Crop
from dfl.data.images.transforms import Augmentation


@dataclass(frozen=True)
class Preprocess:
    """What becomes of a decoded image: augmentations, then a crop.

    Attributes:
        crop: What becomes of an image of any size.
        transforms: Augmentations, applied in this order.
        seed: The seed of augmentations and random crops.
    """

    crop: Crop
    transforms: tuple[Augmentation, ...]
    seed: int

    def of(self, image: Tensor, path: str, *, epoch: int = 0) -> Tensor:
        """Make the view of an image; the image is left as it is.

        Args:
            image: uint8, ``(3, H, W)``.
            path: The image's path in its manifest, which decides its random numbers.
            epoch: The epoch that they are drawn for.
        """
        with torch.random.fork_rng(devices=()):
            # The CPU's generator only: torch.manual_seed would reseed the accelerators as well.
            torch.default_generator.manual_seed(_sample_seed(self.seed, epoch, path))
            for transform in self.transforms:
                image = transform(image)
            return self.crop(image)


def _sample_seed(seed: int, epoch: int, path: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{epoch}:{path}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits from a positive int
