"""Samplers: every image exactly once a pass over all processes, and as many batches for each.

Both are subclasses of torch's ``DistributedSampler`` and are told their place, so Lightning leaves
them as they are. Where the images do not divide by the processes, a few are repeated; a repetition
is drawn as ``~position`` and the dataset marks it as padding, so no metric and no table counts it
twice.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import Dataset, DistributedSampler


@runtime_checkable
class EpochDataset(Protocol):
    """A dataset that may differ from epoch to epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Be told the epoch that begins."""


class EvalSampler(DistributedSampler[int]):
    """Positions in the dataset's order, dealt one by one to the processes.

    Args:
        dataset: The dataset that is sampled.
        num_replicas: The number of processes.
        rank: The number of this one, from 0.
    """

    def __init__(self, dataset: Dataset[Any], *, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)

    def __iter__(self) -> Iterator[int]:
        return iter(_deal(range(self._count()), self.num_replicas, self.rank))

    def _count(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch types a dataset as unsized


class TrainSampler(EvalSampler):
    """Positions in a random order that is new in each epoch, dealt one by one to the processes.

    Args:
        dataset: The dataset that is sampled; if it has ``set_epoch``, it is told the epoch.
        num_replicas: The number of processes.
        rank: The number of this one, from 0.
        seed: The seed of the order, the same in all processes.
        groups: The group of each position. Those of a group then follow each other, in the order of
            all processes together, and so are in one step, but for a group that a step ends in.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        groups: Sequence[Hashable] | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank)
        self.seed = seed
        self.groups = groups

    def set_epoch(self, epoch: int) -> None:
        """Draw another order, and other augmentations."""
        super().set_epoch(epoch)
        if isinstance(self.dataset, EpochDataset):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self._count(), generator=generator).tolist()
        if self.groups is not None:
            turn: dict[Hashable, int] = {}
            for position in order:
                turn.setdefault(self.groups[position], len(turn))
            order.sort(key=[turn[group] for group in self.groups].__getitem__)
        return iter(_deal(order, self.num_replicas, self.rank))


def _deal(order: "range | list[int]", num_replicas: int, rank: int) -> list[int]:
    missing = -len(order) % num_replicas
    padded = [*order, *(~order[turn % len(order)] for turn in range(missing))]
    return padded[rank::num_replicas]
