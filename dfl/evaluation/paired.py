"""Whether two heads differ on the same images: McNemar's test and the paired bootstrap."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.errors import ScoreError
from dfl.evaluation.bootstrap import percentile_interval


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


def mcnemar(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, groups: Sequence[Hashable] | None = None
) -> float:
    """Test whether two heads are right equally often on the same images.

    McNemar's test (1947) in its exact form: of the images on which just one head is right, the
    share of either is binomial with chance 1/2. Images of one group are not independent; with
    `groups`, whole groups favour A or B with chance 1/2, each by as many images as it does (the
    exact randomisation test of Fisher, 1935, on the differences of the groups). With an image a
    group that is McNemar's test.

    Args:
        correct_a: Whether A is right, truth values of shape ``(N,)``.
        correct_b: Whether B is, in the same order.
        groups: The group of each image; by default every image is one.

    Returns:
        The two-sided p-value; 1.0 where the heads never disagree.

    Raises:
        ScoreError: If the shapes differ.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    _check_same(a, b)
    favour = a.astype(np.int64) - b
    if groups is not None:
        _check_same(a, np.arange(len(groups)))
        favour = np.bincount(pd.factorize(np.asarray(groups))[0], favour).astype(np.int64)
    return _sign_flip(favour)


def _sign_flip(values: npt.NDArray[np.int64]) -> float:
    """Say how likely a sum of these integers, each with a random sign, is as far from 0.

    The characteristic function of the sum is a product of cosines; its discrete Fourier transform
    gives the chance of every sum, exact but for rounding.
    """
    reach, far = int(np.abs(values).sum()), abs(int(values.sum()))
    if not far:
        return 1.0
    angles = np.arange(2 * reach + 1) * (2 * np.pi / (2 * reach + 1))
    transform = np.ones_like(angles)
    for size, count in zip(*np.unique(np.abs(values), return_counts=True), strict=True):
        transform *= np.cos(size * angles) ** count
    chance = np.fft.ifft(transform).real  # of the sums 0, 1, ..., reach, -reach, ..., -1
    return float(np.clip(2 * chance[far : reach + 1].sum(), 0.0, 1.0))


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
