"""The VAE: it squeezes an image through a noisy code and draws it again (Kingma, Welling 2014)."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from dfl.demo.generators.imitator import THUMBNAIL_FACTOR, Imitator, blank, conv_block, stretch

FIRST_LOG_VARIANCE = -7.0
"""Where the posterior's log variance starts: at 0, the noise would drown what the code says."""


class VaeImitator(Imitator):
    """A convolutional VAE; an imitation is the decoding of one draw from the crop's posterior.

    The code starts as a colour thumbnail at a quarter of the size (three channels) with the grey
    detail at half the size (four channels), and the drawing as the two enlarged: the networks learn
    what to add to that, which takes minutes in place of hours.

    Args:
        width: Channels at full size; the two smaller sizes have twice and four times as many.
        code_channels: Channels of the code, at least seven; its height and width are a quarter
            of the image's.
        kl_weight: Weight of the Kullback-Leibler divergence, in nats per pixel and channel,
            against the reconstruction loss: it sets how noisy the code is.
    """

    def __init__(self, width: int = 32, code_channels: int = 8, kl_weight: float = 1e-3) -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.encoder = nn.Sequential(
            conv_block(3, width),
            conv_block(width, 2 * width, stride=2),
            conv_block(2 * width, 4 * width, stride=2),
            conv_block(4 * width, 4 * width),
            nn.Conv2d(4 * width, 2 * code_channels, 1),
        )
        self.decoder = nn.Sequential(
            conv_block(code_channels, 4 * width),
            conv_block(4 * width, 4 * width),
            nn.Upsample(scale_factor=2),
            conv_block(4 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            conv_block(2 * width, width),
            blank(nn.Conv2d(width, 3, 3, padding=1)),
        )

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior's mean and log variance, each ``(B, code_channels, H/4, W/4)``."""
        mean, log_variance = self.encoder(image).chunk(2, dim=1)
        first = _first_code(image)
        rest = first.new_zeros(len(first), mean.shape[1] - first.shape[1], *first.shape[2:])
        mean = mean + torch.cat([first, rest], dim=1)
        return mean, (log_variance + FIRST_LOG_VARIANCE).clamp(-12.0, 4.0)

    def decode(self, code: Tensor) -> Tensor:
        """Draw the image of a code, ``(B, code_channels, h, w)`` to ``(B, 3, 4 h, 4 w)``."""
        image: Tensor = _first_image(code) + self.decoder(code)
        return image

    def reconstruct(
        self, image: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the decoding of one posterior draw, with the posterior's mean and log variance."""
        mean, log_variance = self.encode(image)
        noise = torch.randn(mean.shape, generator=generator)
        return self.decode(mean + (0.5 * log_variance).exp() * noise), mean, log_variance

    def update(
        self, real: Tensor, optimizers: list[Optimizer], *, generator: torch.Generator
    ) -> dict[str, float]:
        """Take one step on reconstruction plus divergence; see ``Imitator.update``."""
        (optimizer,) = optimizers
        drawn, mean, log_variance = self.reconstruct(real, generator=generator)
        error = functional.l1_loss(drawn, real) + _edge_loss(drawn, real)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum()
        divergence = divergence / real.numel()
        loss = error + self.kl_weight * divergence
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        return {"error": error.item(), "divergence": divergence.item()}

    @torch.no_grad()
    def imitate(self, crop: Tensor, *, generator: torch.Generator) -> Tensor:
        """Reconstruct the crop from one posterior draw; see ``Imitator.imitate``."""
        return self.reconstruct(crop, generator=generator)[0].clamp(-1.0, 1.0)


def _edge_loss(drawn: Tensor, real: Tensor) -> Tensor:
    """Compare differences of neighbouring pixels: plain L1 alone forgives lost edges."""
    down = functional.l1_loss(drawn.diff(dim=-2), real.diff(dim=-2))
    across = functional.l1_loss(drawn.diff(dim=-1), real.diff(dim=-1))
    return down + across


def _first_code(image: Tensor) -> Tensor:
    """Return the thumbnail and the grey detail at half size, ``(B, 7, H/4, W/4)``."""
    small = functional.avg_pool2d(image, THUMBNAIL_FACTOR)
    detail = functional.avg_pool2d((image - stretch(small)).mean(dim=1, keepdim=True), 2)
    return torch.cat([small, functional.pixel_unshuffle(detail, 2)], dim=1)


def _first_image(code: Tensor) -> Tensor:
    """Enlarge what ``_first_code`` put into the first seven channels, ``(B, 3, 4 h, 4 w)``."""
    detail = functional.pixel_shuffle(code[:, 3:7], 2)
    return stretch(code[:, :3]) + functional.interpolate(detail, scale_factor=2.0, mode="bilinear")
