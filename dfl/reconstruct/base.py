"""What makes copies of photographs that show how a decoder draws."""

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from dfl.backbones.precision import exact_float32
from dfl.backbones.weights import state_digest
from dfl.recipe import Recipe, public_name


class Reconstructor(nn.Module, ABC):
    """A frozen network that draws a photograph again, as a generator draws its images.

    A subclass keeps its networks as modules, and says in `draw` how they are run.

    Args:
        family: The family of generators that its images are counted to; None for one of its own,
            called as it is in a config.
    """

    def __init__(self, family: str | None = None) -> None:
        super().__init__()
        self.family = family

    @property
    @abstractmethod
    def stride(self) -> int:
        """What the sides of an image have to be multiples of, in pixels."""

    @abstractmethod
    def draw(self, image: Tensor) -> Tensor:
        """Draw an image again.

        Args:
            image: ``(1, 3, h, w)`` in [0, 1], float32; the sides are multiples of the stride.

        Returns:
            The same shape; values may leave [0, 1].
        """

    def forward(self, image: Tensor) -> Tensor:
        """Draw an 8-bit image again.

        Args:
            image: uint8, ``(3, h, w)``; the sides are multiples of the stride.

        Returns:
            uint8, ``(3, h, w)``, on the same device.
        """
        with torch.inference_mode(), exact_float32(image.device):
            drawn = self.draw(image[None].float() / 255)[0]
            return drawn.mul(255).round().clamp(0, 255).to(torch.uint8)

    def freeze(self) -> Self:
        """Want no gradients, in eval mode, and compute in float32."""
        return self.float().requires_grad_(False).eval()

    def recipe(self) -> Recipe:
        """Describe what decides the pixels that it draws: its kind, its settings, its weights."""
        kind = public_name(type(self))
        return {"class_path": kind, **self.settings(), "weights": state_digest(self.state_dict())}

    def settings(self) -> Recipe:
        """Describe what the weights do not say; nothing for most."""
        return {}
