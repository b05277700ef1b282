"""The levels of an axis against each other: effects, and whether the claims of a study held."""

from itertools import product
from typing import Final

import numpy as np
import pandas as pd

from dfl.evaluation import METRICS, PairedDifference
from dfl.study.analysis.estimates import Estimate, Estimator
from dfl.study.analysis.judge import AXES
from dfl.study.design.settings import Claim

_ALPHA: Final = 0.05
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

    Only what exists at every level of an axis is averaged: a level that was not tried everywhere
    would otherwise be compared on other choices than the rest.

    Returns:
        ``axis, level, value, low, high, n_cells``, and ``difference, diff_low, diff_high``: the
        paired difference to the best level of the axis, nan for that level itself.
    """
    rows = []
    for scope, description in _SCOPES.items():
        table = _test_rows(estimator.table, scope)
        for axis in _VARIED[scope]:
            kept = comparable(table, axis)
            if kept is None:
                continue
            means = {
                str(level): estimator.mean(own) for level, own in kept.groupby(axis, sort=False)
            }
            sign = METRICS[estimator.metric].sign
            best = max(means.values(), key=lambda mean: sign * mean.value)
            name = f"{axis.replace('_', ' ')}, {description}"
            for level, mean in means.items():
                rows.append(
                    {"axis": name, "level": level}
                    | mean.columns
                    | {"n_cells": mean.count}
                    | _behind(mean, best)
                )
    columns = ["axis", "level", "value", "low", "high", "n_cells"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "diff_low", "diff_high"])


def _behind(mean: Estimate, best: Estimate) -> dict[str, object]:
    """Give the paired difference to the best level, as columns."""
    if mean is best:
        return dict.fromkeys(("difference", "diff_low", "diff_high"), np.nan)
    paired = mean.minus(best)
    return {"difference": paired.difference, "diff_low": paired.low, "diff_high": paired.high}


def check_claims(estimator: Estimator, claims: list[Claim]) -> pd.DataFrame:
    """Put claims to the test, pair by pair of a level claimed better and another.

    A claim held if every pair's 95 % interval of the paired difference is above 0. It did not hold
    if some pair's interval, at the level 1 - 0.05 / pairs (Bonferroni), is below 0: among many
    levels that are equally good, some pair is bound to look the wrong way round. Otherwise it is
    undecided, as it is where there are too few replicates for so narrow a tail. Shown is the pair
    that decides: the clearest contradiction of a claim that did not hold, else the least certain
    pair; its interval has the level that decides, and so holds 0 where a claim is undecided.

    Returns:
        ``statement, verdict, evidence, difference, low, high``; the difference is positive where
        the level claimed better is better.
    """
    rows = [_check(estimator, claim) for claim in claims]
    columns = ["statement", "verdict", "evidence", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _check(estimator: Estimator, claim: Claim) -> dict[str, object]:
    table = _test_rows(estimator.table, claim.scope)
    levels = list(table[claim.axis].unique())
    others = claim.others or [level for level in levels if level not in claim.better]
    wanted = [*claim.better, *others]
    missing = [level for level in wanted if level not in levels]
    kept = comparable(table[table[claim.axis].isin(wanted)], claim.axis)
    if missing or not others or kept is None:
        what = "nothing to compare with"
        if missing:
            what = f"no {claim.axis} {', '.join(missing)} in the first grid, on which claims rest"
        return {
            "statement": claim.statement,
            "verdict": "not tested",
            "evidence": what,
        } | dict.fromkeys(("difference", "low", "high"), float("nan"))
    sign = METRICS[estimator.metric].sign
    means = {level: estimator.mean(kept[kept[claim.axis] == level]) for level in wanted}
    verdict, pair, found = _decide(means, claim.better, others, sign)
    ranked = sorted(wanted, key=lambda level: -sign * means[level].value)
    listed = ", ".join(f"{level} {means[level].value:.3f}" for level in ranked)
    count = means[ranked[0]].count
    few = ""
    if verdict == "undecided" and found.high < 0:
        few = f"; too few replicates for {len(claim.better) * len(others)} pairs"
    return {
        "statement": claim.statement,
        "verdict": verdict,
        "evidence": f"{pair[0]} against {pair[1]} decides; means over {count} cells each: {listed}"
        + few,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
    }


def _decide(
    means: dict[str, Estimate], better: list[str], others: list[str], sign: float
) -> tuple[str, tuple[str, str], PairedDifference]:
    """Give the verdict, and the pair that it rests on with its difference."""
    pairs = list(product(better, others))
    plain = {pair: _difference(means, pair, sign, 1 - _ALPHA) for pair in pairs}
    least = min(plain, key=lambda pair: plain[pair].low)
    if plain[least].low > 0:
        return "held", least, plain[least]
    strict = {pair: _difference(means, pair, sign, 1 - _ALPHA / len(pairs)) for pair in pairs}
    worst = min(strict, key=lambda pair: strict[pair].high)
    replicates = len(next(iter(means.values())).replicates)
    if strict[worst].high < 0 and replicates * _ALPHA / (2 * len(pairs)) >= 1:
        return "did not hold", worst, strict[worst]
    return "undecided", least, plain[least] if plain[least].high >= 0 else strict[least]


def _difference(
    means: dict[str, Estimate], pair: tuple[str, str], sign: float, level: float
) -> PairedDifference:
    """Subtract, so that the difference is positive where the first of the pair is better."""
    first, second = (means[name] for name in (pair if sign > 0 else pair[::-1]))
    return first.minus(second, level)


def _test_rows(table: pd.DataFrame, scope: str) -> pd.DataFrame:
    """Keep the first grid's test rows of a scope, with training and test condition as one axis.

    Other grids are left out: not every choice of theirs meets every choice of the first.
    """
    rows = table[(table["scope"] == scope) & (table["split"] == "test")]
    rows = rows[rows["grid"] == table["grid"].iloc[0]]
    same = rows["train_condition"] == rows["test_condition"]
    both = rows["train_condition"] + " \u2192 " + rows["test_condition"]
    named: pd.DataFrame = rows.assign(condition=rows["train_condition"].where(same, both))
    return named


def comparable(rows: pd.DataFrame, axis: str) -> pd.DataFrame | None:
    """Keep the rows that have a counterpart at every level of an axis, the same in all else.

    Returns:
        The rows, so that the means of the levels are over the same choices; None if they have not
        two levels.
    """
    others = {*AXES, "condition"} - {axis, "grid", "train_condition", "test_condition"}
    count = rows.groupby(sorted(others), sort=False)[axis].transform("nunique")
    kept: pd.DataFrame = rows[count == rows[axis].nunique()]
    return kept if kept[axis].nunique() > 1 else None
