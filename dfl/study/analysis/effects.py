"""What each choice changes: the mean of every level of an axis, and its distance to the best."""

from typing import Final

import pandas as pd

from dfl.evaluation import METRICS, paired_difference
from dfl.study.analysis.estimates import Estimate, Estimator
from dfl.study.analysis.selections import company, tested, value_columns

__all__ = ["effects"]

_SCOPES: Final = {
    "seen": "on the datasets trained on",
    "unseen": "on datasets not trained on",
    "macro": "on all datasets",
}
# training sets differ in what they have seen: only the same test sets compare them
_VARIED: Final = {
    "seen": ("features", "reduction", "head", "condition"),
    "unseen": ("features", "reduction", "head", "condition"),
    "macro": ("train_set",),
}


def effects(estimator: Estimator) -> pd.DataFrame:
    """Average over all else, level by level of each axis.

    Only what exists at every level of an axis is compared, so that a level that was not tried
    everywhere has no better or worse company than the others.

    Returns:
        ``axis, level, value, low, high, n_cells``, and ``difference, diff_low, diff_high``: the
        paired difference to the best level of the axis, nan for that level itself.
    """
    rows = []
    for scope, description in _SCOPES.items():
        table = tested(estimator.table, scope)
        for axis in _VARIED[scope]:
            kept = company(table, axis)
            if kept is None:
                continue
            means = {
                str(level): estimator.mean(own) for level, own in kept.groupby(axis, sort=False)
            }
            best = _best(means, estimator.metric)
            name = f"{axis.replace('_', ' ')}, {description}"
            for level, mean in means.items():
                rows.append(
                    {"axis": name, "level": level}
                    | value_columns(mean)
                    | {"n_cells": mean.count}
                    | _behind(mean, means[best], is_best=level == best)
                )
    columns = ["axis", "level", "value", "low", "high", "n_cells"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "diff_low", "diff_high"])


def _best(means: dict[str, Estimate], metric: str) -> str:
    return max(means, key=lambda level: METRICS[metric].sign * means[level].value)


def _behind(mean: Estimate, best: Estimate, *, is_best: bool) -> dict[str, object]:
    nan = float("nan")
    if is_best:
        return {"difference": nan, "diff_low": nan, "diff_high": nan}
    paired = paired_difference(mean.value, best.value, mean.replicates, best.replicates)
    return {"difference": paired.difference, "diff_low": paired.low, "diff_high": paired.high}
