"""Whether the claims of a study held."""

from itertools import product
from typing import Final

import pandas as pd

from dfl.evaluation import METRICS, PairedDifference, paired_difference
from dfl.study.analysis.estimates import Estimate, Estimator
from dfl.study.analysis.selections import company, tested
from dfl.study.design.claims import Claim

__all__ = ["check_claims"]

_ALPHA: Final = 0.05


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
    table = tested(estimator.table, claim.scope)
    levels = list(table[claim.axis].unique())
    others = claim.others or [level for level in levels if level not in claim.better]
    wanted = [*claim.better, *others]
    missing = [level for level in wanted if level not in levels]
    kept = company(table[table[claim.axis].isin(wanted)], claim.axis)
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
    return paired_difference(first.value, second.value, first.replicates, second.replicates, level)
