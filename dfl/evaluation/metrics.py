"""The metrics of one set of scores: accuracy, average precision, AUROC and equal error rate."""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from dfl.errors import ScoreError
from dfl.types import FAKE, REAL, UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METRICS", "binary_metrics", "dense_ranks"]

METRICS: Final = ("accuracy", "ap", "auroc", "eer")
"""The columns of every results table, in this order; all but ``eer`` are better when higher."""


def binary_metrics(
    score: npt.ArrayLike, label: npt.ArrayLike, *, threshold: float = 0.0
) -> dict[str, float]:
    """Compute the metrics of scores against labels; fake is the positive class.

    torchmetrics guesses for every call whether its inputs are logits and may apply a sigmoid, which
    makes ties where it saturates. So the rank metrics get dense ranks within [0, 1], and the counts
    get decisions that are already made.

    Args:
        score: Margins or logits, shape ``(N,)``, higher = fake.
        label: ``REAL``, ``FAKE`` or ``UNKNOWN``, shape ``(N,)``; unknown rows are left out.
        threshold: A score above it says fake, a score at it real.

    Returns:
        ``accuracy``, ``ap``, ``auroc``, ``eer``, ``balanced_accuracy``, all in [0, 1], and the
        counts ``n_real`` and ``n_fake``. With one class only, all but ``accuracy`` are nan; with no
        row at all, ``accuracy`` is as well. ``eer`` is the mean of the false positive and the false
        negative rate at the threshold, among the scores that occur, where the two differ least.

    Raises:
        ScoreError: If the shapes differ, a score is not finite, or a label is not 0, 1 or -1.
    """
    import torch  # takes seconds: score tables and the study's metrics do without it
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_average_precision,
        binary_eer,
        binary_stat_scores,
    )

    margin, truth = checked_scores(score, label)
    n_fake = int(np.count_nonzero(truth == FAKE))
    n_real = truth.size - n_fake
    target = torch.from_numpy(truth)
    metrics = dict.fromkeys((*METRICS, "balanced_accuracy"), float("nan"))
    if truth.size:
        decision = torch.from_numpy((margin > threshold).astype(np.int64))
        counts = binary_stat_scores(decision, target, validate_args=False).tolist()
        true_fake, true_real = int(counts[0]), int(counts[2])  # integers make exact ratios
        metrics["accuracy"] = (true_fake + true_real) / truth.size
    if n_real and n_fake:
        ranks = torch.from_numpy(dense_ranks(margin))
        metrics["ap"] = _unit(binary_average_precision(ranks, target, validate_args=False))
        metrics["auroc"] = _unit(binary_auroc(ranks, target, validate_args=False))
        metrics["eer"] = _unit(binary_eer(ranks, target, validate_args=False))
        metrics["balanced_accuracy"] = (true_fake / n_fake + true_real / n_real) / 2
    return metrics | {"n_real": float(n_real), "n_fake": float(n_fake)}


def dense_ranks(score: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Replace scores by dense ranks in [0, 1], which keep their order and their ties.

    Args:
        score: Finite values, shape ``(N,)``.

    Returns:
        Ranks, shape ``(N,)``, float64; all 0 when the scores are all the same.
    """
    values, rank = np.unique(np.asarray(score), return_inverse=True)
    return rank.astype(np.float64) / max(1, values.size - 1)


def checked_scores(
    score: npt.ArrayLike, label: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    margin = np.asarray(score, dtype=np.float64)
    truth = np.asarray(label)
    if margin.ndim != 1 or margin.shape != truth.shape:
        raise ScoreError(
            f"scores of shape {margin.shape} and labels of shape {truth.shape}; "
            "give one score and one label an image"
        )
    if not np.isfinite(margin).all():
        wrong = margin[~np.isfinite(margin)][0]
        raise ScoreError(
            f"a score is {wrong}; scores must be finite, so check the head that made them"
        )
    odd = ~np.isin(truth, (REAL, FAKE, UNKNOWN))
    if odd.any():
        raise ScoreError(
            f"a label is {truth[odd][0]}; use 0 for real, 1 for fake or -1 for unknown"
        )
    known = truth != UNKNOWN
    return margin[known], truth[known].astype(np.int64)


def _unit(value: "Tensor") -> float:
    # torchmetrics sums in float32: a sum can end a hair outside, and further digits are noise.
    return round(min(1.0, max(0.0, float(value))), 7)
