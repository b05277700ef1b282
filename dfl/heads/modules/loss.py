"""The loss of a classifier."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dfl.types import UNKNOWN

__all__ = ["cross_entropy"]


def cross_entropy(logit: Tensor, label: Tensor) -> Tensor:
    """Compute the binary cross-entropy of each sample.

    Args:
        logit: Shape ``(B,)``, higher = fake.
        label: ``REAL``, ``FAKE`` or ``UNKNOWN``, shape ``(B,)``.

    Returns:
        In nats, shape ``(B,)``; nan where the label is unknown, which means leave out.
    """
    loss = binary_cross_entropy_with_logits(logit, label.to(logit.dtype), reduction="none")
    return torch.where(label == UNKNOWN, torch.nan, loss)
