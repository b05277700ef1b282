"""The diffusion model: it denoises its way from noise to an image, given a thumbnail.

A denoising diffusion model (Ho and others 2020) with a cosine schedule (Nichol, Dhariwal 2021) that
predicts the velocity (Salimans, Ho 2022), conditioned on a small image as in SR3 (Saharia and
others 2021), and sampled with DDIM (Song and others 2021). What is diffused is only the detail that
the thumbnail lacks, as in SRDiff (Li and others 2021): the colours are right from the start.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from dfl.demo.generators.imitator import Imitator, thumbnail

TIME_CHANNELS = 64
DETAIL_SCALE = 4.0
"""Brings the detail, image minus thumbnail, to the noise's scale; it rarely exceeds 0.5."""
FIRST_TIME = 0.98
"""Sampling starts where the schedule still has a trace of signal: at 1 there is none to find."""


class ResidualBlock(nn.Module):
    """Two convolutions around a skip connection, shifted by the time.

    Args:
        in_channels: Channels in, a multiple of 8.
        out_channels: Channels out, a multiple of 8.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(TIME_CHANNELS, out_channels)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Transform ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``, time ``(B, TIME_CHANNELS)``."""
        hidden = self.conv1(functional.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        out: Tensor = self.skip(x) + hidden
        return out


class DenoisingUNet(nn.Module):
    """The denoising network; it works on squares of two by two pixels at once.

    Args:
        width: Channels at half size; the smaller sizes have two and three times as many.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.time = nn.Sequential(
            nn.Linear(TIME_CHANNELS, TIME_CHANNELS),
            nn.SiLU(),
            nn.Linear(TIME_CHANNELS, TIME_CHANNELS),
            nn.SiLU(),
        )
        self.enter = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(4 * (3 + 3), width, 3, padding=1)
        )
        self.down1 = ResidualBlock(width, width)
        self.down2 = ResidualBlock(width, 2 * width)
        self.middle = ResidualBlock(2 * width, 3 * width)
        self.up2 = ResidualBlock(5 * width, 2 * width)
        self.up1 = ResidualBlock(3 * width, width)
        self.leave = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, 4 * 3, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, noisy: Tensor, small: Tensor, time: Tensor) -> Tensor:
        """Predict the velocity.

        Args:
            noisy: Noised details, shape ``(B, 3, H, W)``, H and W multiples of 8.
            small: Stretched thumbnails in [-1, 1], shape ``(B, 3, H, W)``.
            time: From 0, clean, to 1, all noise; shape ``(B,)``.

        Returns:
            The velocity, shape ``(B, 3, H, W)``.
        """
        embedded = self.time(_embed_time(time))
        skip1 = self.down1(self.enter(torch.cat([noisy, small], dim=1)), embedded)
        skip2 = self.down2(functional.avg_pool2d(skip1, 2), embedded)
        hidden = self.middle(functional.avg_pool2d(skip2, 2), embedded)
        hidden = functional.interpolate(hidden, scale_factor=2.0)
        hidden = self.up2(torch.cat([hidden, skip2], dim=1), embedded)
        hidden = functional.interpolate(hidden, scale_factor=2.0)
        velocity: Tensor = self.leave(self.up1(torch.cat([hidden, skip1], dim=1), embedded))
        return velocity


class DiffusionImitator(Imitator):
    """The denoising network with its training loss and its sampler.

    Args:
        width: Channels at half size.
        num_steps: How many denoising steps a sample takes.
        temperature: Factor on the noise that sampling starts from: below 1 it avoids the speckles
            that a briefly trained model puts on plain surfaces.
    """

    def __init__(self, width: int = 48, num_steps: int = 25, temperature: float = 0.8) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.temperature = temperature
        self.network = DenoisingUNet(width)

    def update(
        self, real: Tensor, optimizers: list[Optimizer], *, generator: torch.Generator
    ) -> dict[str, float]:
        """Take one step on the velocity's squared error; see ``Imitator.update``."""
        (optimizer,) = optimizers
        small = thumbnail(real)
        detail = (real - small) * DETAIL_SCALE
        time = torch.rand(len(real), generator=generator)
        noise = torch.randn(real.shape, generator=generator)
        signal_frac, noise_frac = _schedule(time)
        noisy = signal_frac * detail + noise_frac * noise
        velocity = signal_frac * noise - noise_frac * detail
        loss = functional.mse_loss(self.network(noisy, small, time), velocity)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        return {"velocity": loss.item()}

    @torch.no_grad()
    def imitate(self, crop: Tensor, *, generator: torch.Generator) -> Tensor:
        """Denoise pure noise under the crop's thumbnail; see ``Imitator.imitate``."""
        small = thumbnail(crop)
        noisy = self.temperature * torch.randn(crop.shape, generator=generator)
        times = torch.linspace(FIRST_TIME, 0.0, self.num_steps + 1)
        detail = torch.zeros_like(small)
        for now, then in pairwise(times):
            signal_frac, noise_frac = _schedule(now.reshape(1))
            velocity = self.network(noisy, small, now.repeat(len(crop)))
            detail = signal_frac * noisy - noise_frac * velocity
            # no detail leaves the range of the image
            detail = ((small + detail / DETAIL_SCALE).clamp(-1.0, 1.0) - small) * DETAIL_SCALE
            noise = (noisy - signal_frac * detail) / noise_frac
            signal_frac, noise_frac = _schedule(then.reshape(1))
            noisy = signal_frac * detail + noise_frac * noise
        return small + detail / DETAIL_SCALE


def _schedule(time: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much signal and how much noise there is at each time, each ``(B, 1, 1, 1)``."""
    angle = time[:, None, None, None] * (math.pi / 2.0)
    return angle.cos(), angle.sin()


def _embed_time(time: Tensor) -> Tensor:
    """Spread times ``(B,)`` over sines and cosines, ``(B, TIME_CHANNELS)``."""
    frequency = torch.logspace(0.0, 3.0, TIME_CHANNELS // 2)
    angle = time[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)
