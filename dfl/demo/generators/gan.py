"""The GAN: it invents the detail that a thumbnail lacks, after pix2pix (Isola and others 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam, Optimizer

from dfl.demo.generators.imitator import Imitator, conv_block, thumbnail


class ThumbnailPainter(nn.Module):
    """The generating network: a U-Net from a thumbnail and noise to an image.

    Args:
        width: Channels at full size; the smaller sizes have twice and four times as many.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down0 = conv_block(3 + 1, width)
        self.down1 = conv_block(width, 2 * width, stride=2)
        self.down2 = conv_block(2 * width, 4 * width, stride=2)
        self.down3 = conv_block(4 * width, 4 * width, stride=2)
        self.up2 = _upsampling(4 * width, 4 * width)
        self.up1 = _upsampling(8 * width, 2 * width)
        self.up0 = _upsampling(4 * width, width)
        self.merge = conv_block(2 * width, width)
        self.paint = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, small: Tensor, noise: Tensor) -> Tensor:
        """Paint an image.

        Args:
            small: Stretched thumbnails in [-1, 1], shape ``(B, 3, H, W)``.
            noise: Standard normal, shape ``(B, 1, H, W)``.

        Returns:
            Images around [-1, 1], shape ``(B, 3, H, W)``.
        """
        skip0 = self.down0(torch.cat([small, noise], dim=1))
        skip1 = self.down1(skip0)
        skip2 = self.down2(skip1)
        hidden = self.up2(self.down3(skip2))
        hidden = self.up1(torch.cat([hidden, skip2], dim=1))
        hidden = self.up0(torch.cat([hidden, skip1], dim=1))
        hidden = self.merge(torch.cat([hidden, skip0], dim=1))
        painted: Tensor = small + self.paint(hidden)
        return painted


class PatchCritic(nn.Module):
    """The judging network: one score for every patch of 22 pixels, given the thumbnail.

    Args:
        width: Channels of the first layer.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(3 + 3, width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * width, 4 * width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(4 * width, 1, 1)),
        )

    def forward(self, image: Tensor, small: Tensor) -> Tensor:
        """Score images ``(B, 3, H, W)``; higher is more real, shape ``(B, 1, H/4, W/4)``."""
        scores: Tensor = self.layers(torch.cat([image, small], dim=1))
        return scores


class GanImitator(Imitator):
    """The two networks and their game, with the hinge loss.

    Args:
        width: Channels at full size, of both networks.
        l1_weight: Weight of the distance to the real crop, against the critic's judgement.
    """

    def __init__(self, width: int = 32, l1_weight: float = 15.0) -> None:
        super().__init__()
        self.l1_weight = l1_weight
        self.painter = ThumbnailPainter(width)
        self.critic = PatchCritic(width)

    def optimizers(self, lr: float) -> list[Optimizer]:
        """Make one Adam a network; the critic's is twice as fast, or the painter outruns it."""
        return [
            Adam(self.painter.parameters(), lr=lr, betas=(0.5, 0.99)),
            Adam(self.critic.parameters(), lr=2.0 * lr, betas=(0.5, 0.99)),
        ]

    def update(
        self, real: Tensor, optimizers: list[Optimizer], *, generator: torch.Generator
    ) -> dict[str, float]:
        """Take one step of the critic and one of the painter; see ``Imitator.update``."""
        painter_optimizer, critic_optimizer = optimizers
        small = thumbnail(real)
        painted = self.painter(small, _noise_like(small, generator))

        on_real = self.critic(real, small)
        on_painted = self.critic(painted.detach(), small)
        critic_loss = (
            functional.relu(1.0 - on_real).mean() + functional.relu(1.0 + on_painted).mean()
        )
        critic_optimizer.zero_grad()
        critic_loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        critic_optimizer.step()

        distance = functional.l1_loss(painted, real)
        painter_loss = self.l1_weight * distance - self.critic(painted, small).mean()
        painter_optimizer.zero_grad()
        painter_loss.backward()
        painter_optimizer.step()
        return {"critic": critic_loss.item(), "distance": distance.item()}

    @torch.no_grad()
    def imitate(self, crop: Tensor, *, generator: torch.Generator) -> Tensor:
        """Paint over the crop's thumbnail; see ``Imitator.imitate``."""
        small = thumbnail(crop)
        painted: Tensor = self.painter(small, _noise_like(small, generator))
        return painted.clamp(-1.0, 1.0)


def _upsampling(in_channels: int, out_channels: int) -> nn.Sequential:
    """Repeat pixels, then convolve: a transposed convolution leaves a mesh for much longer."""
    return nn.Sequential(nn.Upsample(scale_factor=2), conv_block(in_channels, out_channels))


def _noise_like(image: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(image[:, :1].shape, generator=generator)
