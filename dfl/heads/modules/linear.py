"""The linear head, and training it on an array."""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dfl.heads.modules.losses import cross_entropy
from dfl.heads.modules.standardise import Standardise
from dfl.heads.modules.training_settings import TrainingSettings

_ROWS: Final = 4096  # at a time, where all of them are passed through


class LinearHead(nn.Module):
    """One linear layer on standardised features: logistic regression, trained by gradient descent.

    Args:
        in_features: Number of features D.
    """

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.normalise = Standardise(in_features)
        # the loss is convex: starting from zero makes the result independent of the seed, and no
        # random number is drawn
        self.linear = nn.utils.skip_init(nn.Linear, in_features, 1)  # type: ignore[no-untyped-call]
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Score features.

        Args:
            features: Shape ``(B, D)``.

        Returns:
            Logits, shape ``(B,)``, float32; higher = fake.
        """
        logit: Tensor = self.linear(self.normalise(features))
        return logit.squeeze(1)


def train_linear(
    features: npt.NDArray[np.float32], label: npt.NDArray[np.int64], settings: TrainingSettings
) -> LinearHead:
    """Train a linear head on the CPU by plain torch; no random number of torch's own is drawn.

    Args:
        features: Shape ``(N, D)``; a memory map is read batch by batch.
        label: ``REAL`` or ``FAKE``, shape ``(N,)``.
        settings: Without a problem.

    Returns:
        The head, in evaluation mode.
    """
    head = LinearHead(features.shape[1])
    for start in range(0, len(features), _ROWS):
        head.normalise(torch.tensor(features[start : start + _ROWS]))
    head.normalise.frozen.fill_(True)
    optimizer = torch.optim.AdamW(
        head.parameters(),
        lr=float(settings.learning_rate),
        weight_decay=float(settings.weight_decay),
        fused=True,
    )
    draws = np.random.default_rng(settings.seed)
    batches = -(-len(features) // settings.batch_size)
    for _ in range(settings.epochs):
        for rows in np.array_split(draws.permutation(len(features)), batches):
            rows.sort()  # a memory map is read forwards
            loss = cross_entropy(
                head(torch.from_numpy(features[rows])), torch.from_numpy(label[rows])
            )
            optimizer.zero_grad()
            loss.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return head.eval()
