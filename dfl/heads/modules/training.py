"""What training a module on an array takes, by plain torch on the CPU: order, batches, steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dfl.heads.settings import TrainingSettings

Rows = npt.NDArray[np.int64]

_ONE_AT_A_TIME: Final = Lock()  # threads share torch's random numbers


@contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Let torch draw from a seed; afterwards its random numbers are as they were."""
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))
        yield


def optimise(
    model: nn.Module,
    features: npt.NDArray[np.number],
    settings: TrainingSettings,
    loss: Callable[[Tensor, Rows], Tensor],
) -> None:
    """Take steps of AdamW, whose learning rate rises and falls once (one cycle).

    Args:
        model: What is trained.
        features: Shape ``(N, D)``; a memory map is read batch by batch.
        settings: Without a problem.
        loss: Of each row of a batch: takes its features ``(B, D)`` and their rows, ``(B,)``.
    """
    batches = -(-len(features) // settings.batch_size)
    highest = float(settings.learning_rate)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=highest, weight_decay=float(settings.weight_decay), fused=True
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=settings.epochs * batches
    )
    for _ in range(settings.epochs):
        order = torch.randperm(len(features)).numpy()
        for rows in np.array_split(order, batches):  # no batch is much smaller than the others
            rows.sort()  # a memory map is read forwards
            each = loss(tensor(features[rows]), rows)
            optimizer.zero_grad()
            each.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()


def tensor(rows: npt.NDArray[np.number]) -> Tensor:
    """Copy rows into a tensor of float32: a map may be read-only."""
    return torch.from_numpy(np.array(rows, dtype=np.float32))


def array(tensor: Tensor) -> npt.NDArray[np.float32]:
    """Copy a tensor of a trained module."""
    return tensor.detach().numpy().copy()
