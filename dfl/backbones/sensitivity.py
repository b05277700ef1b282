"""A backbone made of another one: how far noise moves an image's features."""

from typing import Final

import torch
from torch import Tensor

from dfl.backbones.base import Backbone
from dfl.errors import BackboneError

_LEAST: Final = 1e-12  # of a squared distance, so that its logarithm is finite


class Sensitivity(Backbone):
    """How far faint noise moves the features of an image (RIGID, He et al., 2024).

    Photographs are less sensitive to it than what a generator made, as far as the features of a
    foundation model show. Nothing is learnt of any generator, so a head of these few values is a
    floor for detectors that learn.

    The noise is Gaussian, is added to the normalised image, and is the same for all images. Of each
    layer there are two values: the logarithm of ``1 - cos(f, g)`` and that of ``|f - g| / |f|``,
    where f are the features of the image and g those with noise; averaged over the draws. In 16
    bits rounding moves features as well: take ``precision: 32-true``.

    Args:
        backbone: The network that is asked, with its layers; it runs once more for each draw.
        layers: Some of its layers; None is all of them.
        sigma: Standard deviation of the noise, in units of the normalised image, above 0.
        draws: How many noises there are, at least 1.
        seed: Decides the noises.

    Raises:
        BackboneError: If the backbone has no network or no such layer, or an option is out of
            range.
    """

    _noise: Tensor

    def __init__(
        self,
        backbone: Backbone,
        layers: list[str] | None = None,
        *,
        sigma: float = 0.05,
        draws: int = 3,
        seed: int = 0,
    ) -> None:
        if next(backbone.network.parameters(), None) is None:
            raise BackboneError(
                f"{backbone.architecture}: counts pixels, which noise changes by itself; ask a "
                "network for its sensitivity"
            )
        if not sigma > 0 or draws < 1:
            raise BackboneError(
                f"sigma is {sigma} and draws {draws}; sigma must be above 0, draws at least 1"
            )
        layers = list(backbone.layers if layers is None else layers)
        if not layers or not set(layers) <= set(backbone.layers):
            raise BackboneError(
                f"layers {layers}: the backbone gives {', '.join(backbone.layers)}; ask for some "
                "of those"
            )
        super().__init__(
            backbone.network,
            layers,
            architecture=f"dfl:sensitivity:1:{sigma}:{draws}:{seed}:{backbone.architecture}",
            input_size=backbone.input_size,
            mean=backbone.mean,
            std=backbone.std,
        )
        self.sigma = sigma
        self.draws = draws
        self.seed = seed
        self._inner = [backbone]  # in a list, so that its network is not registered twice
        shape = (draws, 3, backbone.input_size, backbone.input_size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("_noise", sigma * noise, persistent=False)

    @property
    def backbone(self) -> Backbone:
        """The network that is asked."""
        return self._inner[0]

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """Run the network once for the image and once for each noise.

        Args:
            image: Normalised, ``(B, 3, input_size, input_size)``.

        Returns:
            ``(B, 2)`` by layer.
        """
        still = self.backbone.encode(image)
        moved = [self.backbone.encode(image + each.to(image.dtype)) for each in self._noise]
        return {
            name: torch.stack([_moved(still[name], each[name]) for each in moved]).mean(dim=0)
            for name in self.layers
        }


def _moved(still: Tensor, moved: Tensor) -> Tensor:
    """Compare features ``(B, D)``; logarithms of both distances, ``(B, 2)``."""
    still, moved = still.float(), moved.float()
    length = still.norm(dim=1, keepdim=True).clamp(min=_LEAST)
    # half the squared distance of vectors of length 1, which does not cancel as 1 - cos does
    turned = still / length - moved / moved.norm(dim=1, keepdim=True).clamp(min=_LEAST)
    cosine = turned.square().sum(dim=1) / 2
    relative = ((still - moved) / length).square().sum(dim=1)
    return torch.stack([(cosine + _LEAST).log(), (relative + _LEAST).log() / 2], dim=1)
