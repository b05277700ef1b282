"""Training a linear head on an array, by plain torch: for the classifier of the sklearn side."""

import numpy as np
import numpy.typing as npt
import torch

from dfl.heads.modules.linear import LinearHead
from dfl.heads.modules.losses import cross_entropy
from dfl.heads.settings import TrainingSettings


def train_linear(
    features: npt.NDArray[np.float32],
    label: npt.NDArray[np.int64],
    settings: TrainingSettings,
    *,
    weight: npt.NDArray[np.float32] | None = None,
) -> LinearHead:
    """Train a linear head on the CPU; no random number of torch's own is drawn.

    Args:
        features: Shape ``(N, D)``; a memory map is read batch by batch.
        label: ``REAL`` or ``FAKE``, shape ``(N,)``.
        settings: Without a problem.
        weight: What the loss of each row is multiplied by, shape ``(N,)``.

    Returns:
        The head, in evaluation mode.
    """
    head = LinearHead(features.shape[1])
    head.normalise.fit(features)
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
            if weight is not None:
                loss = loss * torch.from_numpy(weight[rows])
            optimizer.zero_grad()
            loss.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return head.eval()
