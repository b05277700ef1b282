"""Small autoencoders of random architecture, trained on photographs alone.

What a decoder leaves behind follows from how it is built: how it enlarges, normalises and cuts off.
So many small ones that are built at random show more kinds of traces than one good one, without a
generator that somebody else has trained (after GenSign/DAIR, CVPR 2026).
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from dfl.recipe import Plain, Recipe
from dfl.reconstruct.training import TrainedReconstructor

_WIDEST: Final = 64
_GROUPS: Final = 4

NORMS: Final[dict[str, Callable[[int], nn.Module]]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(_GROUPS, width),
    "instance": lambda width: nn.InstanceNorm2d(width, affine=True),
}
ACTIVATIONS: Final[dict[str, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
UPSAMPLINGS: Final[dict[str, Callable[[int, int], nn.Module]]] = {
    "nearest": lambda inputs, outputs: nn.Sequential(
        nn.Upsample(scale_factor=2), _conv(inputs, outputs)
    ),
    "bilinear": lambda inputs, outputs: nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear"), _conv(inputs, outputs)
    ),
    "transposed": lambda inputs, outputs: nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1),
    "pixel_shuffle": lambda inputs, outputs: nn.Sequential(
        _conv(inputs, 4 * outputs), nn.PixelShuffle(2)
    ),
}
ORDERS: Final = ("conv-norm-activation", "conv-activation-norm", "norm-activation-conv")


class RandomAutoencoder(TrainedReconstructor):
    """An autoencoder whose architecture is drawn from its seed, trained on the photographs.

    Drawn are the number of halvings (1 to 3), the channels, the latent channels, the norm, the
    activation, their order, and how it enlarges.

    Args:
        seed: The seed of the architecture, of the weights and of what it is shown.
        steps: Batches of eight patches that it is trained on.
        patch: Side of a patch in pixels.
        weights: Weights of one of this seed that was trained before; None to train it.
        family: The family of its images; its own name by default.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        seed: int,
        steps: int = 400,
        patch: int = 64,
        weights: Path | None = None,
        family: str | None = None,
    ) -> None:
        super().__init__(seed, steps, patch, weights, family)

    @property
    def stride(self) -> int:
        """Two for each halving."""
        return 1 << _number(self.architecture()["halvings"])

    def architecture(self) -> Recipe:
        """Draw the architecture."""
        rng = Random(self.seed)
        return {
            "halvings": rng.choice((1, 2, 3)),
            "width": rng.choice((12, 16, 24)),
            "latents": rng.choice((4, 8, 16)),
            "norm": rng.choice(sorted(NORMS)),
            "activation": rng.choice(sorted(ACTIVATIONS)),
            "upsampling": rng.choice(sorted(UPSAMPLINGS)),
            "order": rng.choice(ORDERS),
        }

    def settings(self) -> Recipe:
        """Say what was drawn."""
        return self.architecture()

    def build(self) -> nn.Module:
        """Build encoder and decoder; what is normalised is a branch, so that no colour is lost."""
        drawn = self.architecture()
        halvings, width, latents = (_number(drawn[n]) for n in ("halvings", "width", "latents"))
        widths = [min(_WIDEST, width * 2**level) for level in range(halvings + 1)]

        def block(channels: int) -> nn.Module:
            return _Residual(
                channels, str(drawn["norm"]), str(drawn["activation"]), str(drawn["order"])
            )

        encoder: list[nn.Module] = [_conv(3, widths[0])]
        decoder: list[nn.Module] = [_conv(latents, widths[-1])]
        for fine, coarse in pairwise(widths):
            encoder += [nn.Conv2d(fine, coarse, 3, 2, padding=1), block(coarse)]
        for fine, coarse in reversed(list(pairwise(widths))):
            decoder += [block(coarse), UPSAMPLINGS[str(drawn["upsampling"])](coarse, fine)]
        encoder.append(_conv(widths[-1], latents))
        decoder += [block(widths[0]), _conv(widths[0], 3)]
        return nn.Sequential(*encoder, *decoder)

    def draw(self, image: Tensor) -> Tensor:
        """Encode and decode; the network works on [-1, 1]."""
        drawn: Tensor = self.network(2 * image - 1)
        return (drawn + 1) / 2

    def loss(self, image: Tensor) -> Tensor:
        """Compute the mean absolute error."""
        return functional.l1_loss(self.draw(image), image)


class _Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int, norm: str, activation: str, order: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            parts = {
                "conv": _conv(width, width),
                "norm": NORMS[norm](width),
                "activation": ACTIVATIONS[activation](),
            }
            layers += [parts[part] for part in order.split("-")]
        self.branch = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.branch(x)
        return x + added


def _number(drawn: Plain) -> int:
    return int(str(drawn))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
