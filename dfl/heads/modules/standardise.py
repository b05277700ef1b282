"""Standardisation of features inside a head, with the statistics of the training set."""

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dfl.processes import add_up, are_several


class Standardise(nn.Module):
    """Shift and scale every feature to mean 0 and variance 1.

    The statistics grow, batch by batch and over all processes, while the module is in training mode
    and not `frozen`; after one pass they are those of the training set, as scikit-learn's
    ``StandardScaler`` computes them. Batches are merged by the pairwise update of Chan, Golub and
    LeVeque (1979). Unlike with BatchNorm, training and evaluation see the same transformation, and
    a batch of one is allowed.

    Args:
        dim: Number of features D.
        eps: Added to the variance, so that a constant feature does not divide by zero.
    """

    running_mean: Tensor
    running_var: Tensor
    count: Tensor
    frozen: Tensor

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        # a buffer, so that a resumed run does not count the training set again
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))
        # what the buffer says, which to read waits for the device; None where that is not known
        self._is_frozen: bool | None = None
        # torch leaves it untyped
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def freeze(self) -> None:
        """Keep the statistics as they are from now on."""
        self.frozen.fill_(True)
        self._is_frozen = True

    def forward(self, features: Tensor) -> Tensor:
        """Standardise.

        Args:
            features: Shape ``(B, D)``.

        Returns:
            The same shape, float32.
        """
        features = features.float()
        if self.training:
            if self._is_frozen is None:
                self._is_frozen = bool(self.frozen)
            if not self._is_frozen:
                self._update(features.detach())
        return (features - self.running_mean) * torch.rsqrt(self.running_var + self.eps)

    def fit(self, features: npt.NDArray[np.number], *, block: int = 4096) -> None:
        """Take the statistics of a whole matrix, which no later pass changes.

        Args:
            features: Shape ``(N, D)``; a memory map is read block by block.
            block: Rows at a time.
        """
        for start in range(0, len(features), block):
            rows = np.array(features[start : start + block], dtype=np.float32)
            self._update(torch.from_numpy(rows))
        self.freeze()

    @torch.no_grad()
    def _update(self, features: Tensor) -> None:
        # Apple's GPUs have no float64
        values = features if features.device.type == "mps" else features.double()
        count, mean, var = _merge_processes(values)
        total = self.count + count
        delta = mean - self.running_mean
        weight = (count / total).to(values.dtype)
        spread = self.running_var * (1 - weight) + var * weight
        # the first batch replaces the initial variance of one: its weight is one then
        self.running_var.copy_(spread + delta.square() * weight * (1 - weight))
        self.running_mean.add_(delta * weight)
        self.count.copy_(total)  # whole, so no rounding


def _forget(module: nn.Module, _: object) -> None:
    """Let a module look at its buffer again, which may be another's now."""
    cast(Standardise, module)._is_frozen = None


def _merge_processes(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count = torch.tensor(float(len(values)), dtype=values.dtype, device=values.device)
    mean = values.mean(0)
    spread = (values - mean).square().sum(0)
    if are_several():
        # two rounds, not sums of squares: the difference of two large sums would lose the variance
        packed = torch.cat([mean * count, count[None]])
        add_up(packed)
        total, joint = packed[-1], packed[:-1] / packed[-1]
        spread = spread + (mean - joint).square() * count
        add_up(spread)
        return total, joint, spread / total
    return count, mean, spread / count
