"""The curves behind the numbers."""

import numpy as np
import numpy.typing as npt

from dfl.evaluation.metrics import dense_ranks

__all__ = ["roc_points"]


def roc_points(
    score: npt.ArrayLike, label: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute the receiver operating characteristic, one point a distinct score.

    Args:
        score: Finite margins or logits, shape ``(N,)``, higher = fake.
        label: ``REAL`` or ``FAKE``, both present, shape ``(N,)``.

    Returns:
        False positive rates and true positive rates, rising from 0 to 1, each of shape ``(K + 1,)``
        for K distinct scores.
    """
    import torch  # takes seconds: score tables and the study's metrics do without it
    from torchmetrics.functional.classification import binary_roc

    ranks = torch.from_numpy(dense_ranks(score))
    target = torch.from_numpy(np.array(label, dtype=np.int64))
    fpr, tpr, _ = binary_roc(ranks, target, validate_args=False)
    return fpr.numpy().astype(np.float64), tpr.numpy().astype(np.float64)
