"""What the three generators have in common: each one imitates a given crop."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

THUMBNAIL_FACTOR = 4
"""How much smaller the image is that the GAN and the diffusion model see of the crop."""


class Imitator(nn.Module, ABC):
    """A generator whose images have the content of a given real crop.

    Because content is shared, it says nothing about which of the two is real.
    """

    def optimizers(self, lr: float) -> list[Optimizer]:
        """Make the optimizers that ``update`` expects.

        Args:
            lr: Their learning rate.

        Returns:
            One AdamW over all parameters, unless a subclass says otherwise.
        """
        return [AdamW(self.parameters(), lr=lr, weight_decay=0.0)]

    @abstractmethod
    def update(
        self, real: Tensor, optimizers: list[Optimizer], *, generator: torch.Generator
    ) -> dict[str, float]:
        """Take one optimiser step.

        Args:
            real: Training crops in [-1, 1], shape ``(B, 3, H, W)``, H and W multiples of 8.
            optimizers: What ``optimizers`` returned.
            generator: Source of all noise.

        Returns:
            The losses by name.
        """

    @abstractmethod
    def imitate(self, crop: Tensor, *, generator: torch.Generator) -> Tensor:
        """Generate one image for each crop.

        Args:
            crop: Real crops in [-1, 1], shape ``(B, 3, H, W)``.
            generator: Source of all noise.

        Returns:
            Generated images in [-1, 1], shape ``(B, 3, H, W)``.
        """


def thumbnail(image: Tensor) -> Tensor:
    """Keep only what a thumbnail shows, at the size of the image.

    Args:
        image: Shape ``(B, 3, H, W)``.

    Returns:
        The image averaged over squares of ``THUMBNAIL_FACTOR`` pixels and stretched back
        smoothly, shape ``(B, 3, H, W)``.
    """
    return stretch(functional.avg_pool2d(image, THUMBNAIL_FACTOR))


def stretch(small: Tensor) -> Tensor:
    """Enlarge ``(B, C, h, w)`` smoothly by ``THUMBNAIL_FACTOR``."""
    return functional.interpolate(small, scale_factor=float(THUMBNAIL_FACTOR), mode="bilinear")


def conv_block(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    """Make a 3 by 3 convolution with group normalisation and SiLU.

    Args:
        in_channels: Channels in.
        out_channels: Channels out, a multiple of 8.
        stride: 2 halves height and width.

    Returns:
        The layers.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1),
        nn.GroupNorm(8, out_channels),
        nn.SiLU(),
    )


def blank(layer: nn.Conv2d) -> nn.Conv2d:
    """Have a layer start with small weights, so that what it is added to shows through."""
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.zero_()  # type: ignore[union-attr]  # every layer here has one
    return layer
