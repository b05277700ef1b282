"""Training a head that weighs blocks on an array: for the classifier of the sklearn side."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dfl.heads.modules.losses import rine_loss
from dfl.heads.modules.rine import RINEHead
from dfl.heads.modules.training import array, optimise, own_random_numbers
from dfl.heads.settings import RINESettings

Array = npt.NDArray[np.float32]
Layers = list[tuple[Array, Array]]


def train_rine(
    features: npt.NDArray[np.number],
    label: npt.NDArray[np.int64],
    settings: RINESettings,
    *,
    blocks: int,
    weight: Array | None = None,
) -> RINEHead:
    """Build a head and train it on the CPU; torch's own random numbers stay as they were.

    Args:
        features: Shape ``(N, blocks * width)``; a memory map is read batch by batch.
        label: ``REAL`` or ``FAKE``, shape ``(N,)``.
        settings: Without a problem.
        blocks: How many blocks there are.
        weight: What the loss of each row is multiplied by, shape ``(N,)``.

    Returns:
        The head, in evaluation mode.
    """
    truth = torch.from_numpy(label)
    with own_random_numbers(settings.seed):
        head = RINEHead(blocks, features.shape[1] // blocks, **settings.architecture)
        head.normalise.fit(features)

        def loss(batch: Tensor, rows: npt.NDArray[np.int64]) -> Tensor:
            each, _ = rine_loss(head(batch), truth[rows], contrast_weight=settings.contrast_weight)
            return each if weight is None else each * torch.from_numpy(weight[rows])

        optimise(head, features, settings, loss)
    return head.eval()


def linear_layers(module: nn.Sequential) -> Layers:
    """Copy weight ``(out, in)`` and bias ``(out,)`` of the linear layers."""
    return [
        (array(each.weight), array(each.bias)) for each in module if isinstance(each, nn.Linear)
    ]
