"""What an image goes through before a backbone: transforms and a crop, reproducible by its name."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dfl.data.images.crops import Crop
from dfl.data.images.transforms import Augmentation

SameFor = Literal["group", "image"]


@dataclass(frozen=True)
class Draw:
    """One of several draws of the same images, which differ in their random numbers alone.

    Attributes:
        number: Which one, from 1 on.
        same_for: What shares random numbers: all images of a ``group``, as a photograph and its
            reconstruction, which then differ in nothing else; or the rows of an ``image`` alone.
    """

    number: int
    same_for: SameFor = "group"


@dataclass(frozen=True)
class Preprocess:
    """What becomes of a decoded image: augmentations, then a crop.

    Attributes:
        crop: What becomes of an image of any size.
        transforms: Augmentations, applied in this order.
        seed: The seed of augmentations and random crops.
        draw: Which of several draws it is, if it is one.
    """

    crop: Crop
    transforms: tuple[Augmentation, ...]
    seed: int
    draw: Draw | None = None

    def of(self, image: Tensor, path: str, *, group: str = "", epoch: int = 0) -> Tensor:
        """Make the view of an image; the image is left as it is.

        Args:
            image: uint8, ``(3, H, W)``.
            path: The image's path in its manifest, which decides its random numbers.
            group: Its group there, which decides them in its place in a draw that is the same for a
                group.
            epoch: The epoch that they are drawn for; in a draw its number stands for it.
        """
        name, moment = path, str(epoch)
        if self.draw is not None:
            name = group if self.draw.same_for == "group" else path
            moment = f"draw {self.draw.number} for {self.draw.same_for}"
        with torch.random.fork_rng(devices=()):
            # The CPU's generator only: torch.manual_seed would reseed the accelerators as well.
            torch.default_generator.manual_seed(_sample_seed(self.seed, moment, name))
            for transform in self.transforms:
                image = transform(image)
            return self.crop(image)


def _sample_seed(seed: int, moment: str, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{moment}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits from a positive int
