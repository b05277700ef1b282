"""TAEF2, a tiny autoencoder that was distilled from the one of FLUX.2.

Its authors publish two plain state dicts (``madebyollin/taesd``, ``taef2_encoder`` and
``taef2_decoder``), which ``AutoencoderTiny`` of diffusers cannot hold: three blocks on each side
have a branch that is normalised over the whole image.
"""

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from dfl.backbones.weight_files import read_state
from dfl.backbones.weights import load_strictly
from dfl.reconstruct.base import Reconstructor

_WIDTH: Final = 64
_BRANCH: Final = 256
_GROUPS: Final = 4
_LATENTS: Final = 32
_REACH: Final = 3.0


class Taef2(Reconstructor):
    """Encode and decode with TAEF2.

    Args:
        encoder: The encoder's weights: safetensors or a torch checkpoint.
        decoder: The decoder's.
        family: The family of its images; its own name by default.

    Raises:
        BackboneError: If a file cannot be read, or holds other tensors than those of TAEF2.
    """

    def __init__(self, encoder: Path, decoder: Path, family: str | None = None) -> None:
        super().__init__(family)
        self.encoder = encoder
        self.decoder = decoder
        self.network = nn.Sequential(taef2_encoder(), taef2_decoder())
        for part, file in zip(self.network, (encoder, decoder), strict=True):
            load_strictly(part, read_state(file), source=f"weights {str(file)!r}")
        self.freeze()

    def draw(self, image: Tensor) -> Tensor:
        """Encode and decode."""
        drawn: Tensor = self.network(image)
        return drawn

    @property
    def stride(self) -> int:
        """Three halvings."""
        return 8


class Block(nn.Module):
    """Three convolutions and what went in, with a branch before them where that is normalised.

    Args:
        is_normalised: Whether there is such a branch.
    """

    def __init__(self, is_normalised: bool) -> None:
        super().__init__()
        # the names are those of the published files
        self.conv = nn.Sequential(
            _conv(), nn.ReLU(inplace=True), _conv(), nn.ReLU(inplace=True), _conv()
        )
        self.pool = (
            nn.Sequential(
                nn.Conv2d(_WIDTH, _BRANCH, 1, bias=False),
                nn.GroupNorm(_GROUPS, _BRANCH),
                nn.ReLU(inplace=True),
                nn.Conv2d(_BRANCH, _WIDTH, 1, bias=False),
            )
            if is_normalised
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what follows, of the same shape ``(B, 64, h, w)``."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Clamp(nn.Module):
    """Bound latents softly, as the decoder was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / _REACH) * _REACH


def taef2_encoder() -> nn.Sequential:
    """Build the encoder: ``(B, 3, 8 h, 8 w)`` in [0, 1] to ``(B, 32, h, w)``."""
    layers: list[nn.Module] = [_conv(3), Block(False)]
    for is_normalised in (False, False, True):
        layers += [_conv(stride=2, bias=False), *(Block(is_normalised) for _ in range(3))]
    return nn.Sequential(*layers, _conv(outputs=_LATENTS))


def taef2_decoder() -> nn.Sequential:
    """Build the decoder: ``(B, 32, h, w)`` to ``(B, 3, 8 h, 8 w)``."""
    layers: list[nn.Module] = [_Clamp(), _conv(_LATENTS), nn.ReLU(inplace=True)]
    for is_normalised in (True, False, False):
        layers += [*(Block(is_normalised) for _ in range(3)), nn.Upsample(scale_factor=2)]
        layers += [_conv(bias=False)]
    return nn.Sequential(*layers, Block(False), _conv(outputs=3))


def _conv(
    inputs: int = _WIDTH, outputs: int = _WIDTH, *, stride: int = 1, bias: bool = True
) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
