"""Every metric by scikit-learn and plain loops, to compare with."""

import math

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
)

from dfl.evaluation import METRICS, probability

__all__ = ["reference"]


def reference(
    score: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    prob: npt.NDArray[np.float64] | None = None,
    threshold: float = 0.0,
) -> dict[str, float]:
    """Compute the metrics of plain rows one threshold at a time."""
    prob = probability(score) if prob is None else prob
    metrics = dict.fromkeys(METRICS, math.nan)
    if not label.size:
        return metrics
    metrics["accuracy"] = accuracy_score(label, score > 0)
    metrics["accuracy_at_val_threshold"] = accuracy_score(label, score > threshold)
    for name, own in (("fpr", label == 0), ("tpr", label == 1)):
        if own.any():
            metrics[f"{name}_at_val_threshold"] = np.mean(score[own] > threshold)
    gaps = []
    for k in range(15):
        inside = (prob >= k / 15) & ((prob < (k + 1) / 15) | (k == 14))
        if inside.any():
            gap = abs(prob[inside].mean() - label[inside].mean())
            gaps.append(inside.mean() * gap)
    metrics["calibration_error"] = sum(gaps)
    if label.min() == label.max():
        return metrics
    metrics["balanced_accuracy"] = balanced_accuracy_score(label, score > 0)
    metrics["ap"] = average_precision_score(label, score)
    metrics["auroc"] = roc_auc_score(label, score)
    smallest = math.inf
    reached = {1: 0.0, 5: 0.0}
    for cut in [math.inf, *sorted(set(score.tolist()), reverse=True)]:
        fpr, tpr = np.mean(score[label == 0] >= cut), np.mean(score[label == 1] >= cut)
        if abs(fpr - (1 - tpr)) < smallest - 1e-12:
            smallest = abs(fpr - (1 - tpr))
            metrics["eer"] = (fpr + 1 - tpr) / 2
        for percent in reached:
            if fpr <= percent / 100 + 1e-12:
                reached[percent] = max(reached[percent], tpr)
    return metrics | {f"tpr_at_fpr_{percent}": tpr for percent, tpr in reached.items()}
