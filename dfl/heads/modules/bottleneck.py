"""The autoencoder bottleneck: a short code from which the features can be reconstructed."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from dfl.heads.modules.standardise import Standardise


class BottleneckOutput(NamedTuple):
    """What a bottleneck makes of a batch.

    Attributes:
        standardised: What is to be reconstructed, without noise, shape ``(B, D)``.
        reconstruction: The attempt, shape ``(B, D)``.
        code: What is decoded and classified, shape ``(B, C)``: `mean`, or a draw around it where a
            variational bottleneck trains.
        logit: The linear classifier on the code, shape ``(B,)``; higher = fake.
        mean: The encoder's answer, shape ``(B, C)``.
        log_variance: Logarithm of the code's variance, shape ``(B, C)``; None unless variational.
    """

    standardised: Tensor
    reconstruction: Tensor
    code: Tensor
    logit: Tensor
    mean: Tensor
    log_variance: Tensor | None


class Bottleneck(nn.Module):
    """A symmetric autoencoder on standardised features with a linear classifier on its code.

    Args:
        in_features: Number of features D.
        hidden_dims: Widths of the encoder's hidden layers; the decoder mirrors them.
        code_dim: Width C of the bottleneck.
        tied: Whether the decoder takes the encoder's matrices, transposed, and has only biases of
            its own: half the weights.
        noise: Standard deviation of the Gaussian noise that is added to the standardised features
            in training mode; what is to be reconstructed stays clean (denoising autoencoder,
            Vincent et al. 2008).
        variational: Whether the code is Gaussian, with a mean and a variance for each image; it is
            drawn in training mode, and the mean otherwise (Kingma and Welling 2014).
    """

    def __init__(
        self,
        in_features: int,
        hidden_dims: Sequence[int],
        code_dim: int,
        *,
        tied: bool = False,
        noise: float = 0.0,
        variational: bool = False,
    ) -> None:
        super().__init__()
        dims = [in_features, *hidden_dims, code_dim]
        self.noise = noise
        self.normalise = Standardise(in_features)
        self.encoder = _perceptron(dims)
        self.decoder = _Biases(dims[-2::-1]) if tied else _perceptron(dims[::-1])
        self.classifier = nn.Linear(code_dim, 1)
        self.log_variance = nn.Linear(dims[-2], code_dim) if variational else None

    def forward(self, features: Tensor) -> BottleneckOutput:
        """Encode, decode and classify.

        Args:
            features: Shape ``(B, D)``.
        """
        standardised = self.normalise(features)
        seen = standardised
        if self.training and self.noise > 0:
            seen = standardised + self.noise * torch.randn_like(standardised)
        hidden = self.encoder[:-1](seen)
        mean = code = self.encoder[-1](hidden)
        log_variance = None if self.log_variance is None else self.log_variance(hidden)
        if self.training and log_variance is not None:
            code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        logit = self.classifier(code).squeeze(1)
        return BottleneckOutput(standardised, self._decode(code), code, logit, mean, log_variance)

    def encode(self, features: Tensor) -> Tensor:
        """Give the code, shape ``(B, C)``, of features of shape ``(B, D)``; nothing is drawn."""
        code: Tensor = self.encoder(self.normalise(features))
        return code

    def _decode(self, code: Tensor) -> Tensor:
        if not isinstance(self.decoder, _Biases):
            return cast(Tensor, self.decoder(code))
        layers = [layer for layer in self.encoder if isinstance(layer, nn.Linear)]
        hidden = code
        for i, (layer, bias) in enumerate(zip(reversed(layers), self.decoder.biases, strict=True)):
            hidden = linear(gelu(hidden) if i else hidden, layer.weight.T, bias)
        return hidden


class _Biases(nn.Module):
    """What a tied decoder has of its own: a vector a layer, from the first behind the code to D."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.biases = nn.ParameterList(torch.zeros(dim) for dim in dims)


def _perceptron(dims: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for dim_in, dim_out in pairwise(dims):
        layers += [nn.Linear(dim_in, dim_out), nn.GELU()]
    return nn.Sequential(*layers[:-1])  # the code and the reconstruction are not bent
