"""Whether two heads differ on the same images: McNemar's test and the paired bootstrap."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from dfl.errors import ScoreError
from dfl.evaluation.bootstrap import percentile_interval

__all__ = ["PairedDifference", "mcnemar", "paired_difference"]


@dataclass(frozen=True)
class PairedDifference:
    """How much higher a metric is for A than for B.

    Attributes:
        difference: Value of A minus value of B.
        low: Lower end of the confidence interval.
        high: Upper end.
        p: Two-sided p-value of no difference; nan, as the ends are, where too few replicates exist.
    """

    difference: float
    low: float
    high: float
    p: float


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> float:
    """Test whether two heads are right equally often on the same images.

    McNemar's test (1947) in its exact form: of the images on which just one head is right, the
    share of either is binomial with chance 1/2. Images must be independent; where several come from
    one group, prefer ``paired_difference`` over weights by group.

    Args:
        correct_a: Whether A is right, truth values of shape ``(N,)``.
        correct_b: Whether B is, in the same order.

    Returns:
        The two-sided p-value; 1.0 where the heads never disagree.

    Raises:
        ScoreError: If the shapes differ.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    _check_same(a, b)
    only_a, only_b = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_difference(
    value_a: float,
    value_b: float,
    replicates_a: npt.ArrayLike,
    replicates_b: npt.ArrayLike,
    level: float = 0.95,
) -> PairedDifference:
    """Compare one metric of two heads by bootstrap replicates that share their weights.

    Args:
        value_a: The metric of A on the images themselves.
        value_b: That of B.
        replicates_a: The metric of A in each replicate, shape ``(B,)``; nan where it has none.
        replicates_b: That of B, from the same weights (see ``group_weights``).
        level: The confidence level of the interval.

    Returns:
        The difference with its percentile interval, and twice the smaller share of replicates on
        either side of 0 (0 counts on both) as p: at least 2 / (replicates + 1), at most 1. Interval
        and p are nan where more than half of the replicates are nan for either head.

    Raises:
        ScoreError: If the shapes differ, or the level is not between 0 and 1.
    """
    a, b = (np.asarray(side, dtype=np.float64) for side in (replicates_a, replicates_b))
    _check_same(a, b)
    moved = a - b
    low, high = percentile_interval(moved, level)
    known = moved[~np.isnan(moved)]
    p = float("nan")
    if not np.isnan(low):
        share = float(min(np.mean(known <= 0), np.mean(known >= 0)))
        p = min(1.0, max(2 * share, 2 / (known.size + 1)))
    return PairedDifference(float(value_a) - float(value_b), low, high, p)


def _check_same(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> None:
    if a.ndim != 1 or a.shape != b.shape:
        raise ScoreError(
            f"values of shape {a.shape} and {b.shape}; give both heads' on the same rows"
        )
