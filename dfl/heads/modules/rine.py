"""A head that learns which blocks of a backbone tell, and for what."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dfl.heads.modules.standardise import Standardise


class RINEOutput(NamedTuple):
    """What the head makes of a batch.

    Attributes:
        logit: Shape ``(B,)``; higher = fake.
        representation: What is classified, shape ``(B, P)``.
    """

    logit: Tensor
    representation: Tensor


class RINEHead(nn.Module):
    """Weigh the blocks of a backbone, in each dimension of a common projection by itself.

    After RINE (Koutlis and Papadopoulos, "Leveraging Representations from Intermediate
    Encoder-blocks for Synthetic Image Detection", ECCV 2024): every block's vector goes through the
    same projection; a softmax over the blocks says in each dimension how much of which block is
    taken (eq. 3 there); their sum is projected once more, and classified by two hidden layers.
    Unlike there, features are standardised first, and the weights of the blocks begin equal.

    Args:
        blocks: How many blocks n.
        width: Features of each of them; the input has n times as many columns.
        projection_dim: Width P of the projections.
        projection_layers: Linear layers in each of the two projections.
        dropout: Share of values that training drops before and between layers.
    """

    def __init__(
        self,
        blocks: int,
        width: int,
        *,
        projection_dim: int = 128,
        projection_layers: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.normalise = Standardise(blocks * width)
        dims = [projection_dim] * projection_layers
        self.project = _perceptron([width, *dims], dropout)
        self.importance = nn.Parameter(torch.zeros(blocks, projection_dim))
        self.refine = _perceptron([projection_dim, *dims], dropout)
        self.classify = nn.Sequential(
            *_perceptron([projection_dim] * 3, dropout), nn.Linear(projection_dim, 1)
        )

    def forward(self, features: Tensor) -> RINEOutput:
        """Score features.

        Args:
            features: Shape ``(B, blocks * width)``, a block after the other.
        """
        tokens = self.normalise(features).unflatten(1, (self.blocks, -1))  # (B, n, width)
        pooled = (self.importance.softmax(0) * self.project(tokens)).sum(1)  # (B, P)
        representation = self.refine(pooled)
        return RINEOutput(self.classify(representation).squeeze(1), representation)


def _perceptron(dims: list[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for dim_in, dim_out in pairwise(dims):
        layers += [nn.Dropout(dropout), nn.Linear(dim_in, dim_out), nn.ReLU()]
    return nn.Sequential(*layers)
