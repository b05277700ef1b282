"""Bootstrap weights that are the same for the same images everywhere, and intervals from them."""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import pdtr

from dfl.errors import ScoreError

_CUTS: Final = tuple(np.floor(pdtr(np.arange(12), 1.0) * 2.0**32).astype(np.uint32))
"""A 32-bit draw that reaches k of these cuts is a count of k; larger counts are too rare for it."""

_BLOCK: Final = 256  # groups whose draws are turned into counts at once


def group_weights(groups: Sequence[str], *, replicates: int, seed: int) -> npt.NDArray[np.uint8]:
    """Draw the weights of a Poisson bootstrap by group.

    Every group is drawn, with all its rows, Poisson(1) times in each replicate (Hanley and
    MacGibbon, 2006; Chamandy et al., 2012). Its counts come from a generator that is seeded by the
    seed and the group's name alone. So a group has the same counts in every test set, split and
    experiment, beside whatever other groups: statistics of two heads, or of two sets that share
    images, can be compared replicate by replicate. The first replicates of more are those of fewer.

    The sum of the weights varies between replicates, and a small set can get no row at all.

    Args:
        groups: The group of each row, length N.
        replicates: How many replicates B to draw.
        seed: Any integer.

    Returns:
        Counts, shape ``(B, N)``, in memory row by row of the set (Fortran order), as
        ``weighted_metrics`` reads them fastest.

    Raises:
        ScoreError: If ``replicates`` is negative.
    """
    if replicates < 0:
        raise ScoreError(f"{replicates} bootstrap replicates; take 0 or more, usually 1000")
    row_of = {group: row for row, group in enumerate(dict.fromkeys(groups))}
    names = [*row_of]
    drawn = np.empty((len(names), replicates), dtype=np.uint8)
    for start in range(0, len(names), _BLOCK):
        part = slice(start, start + _BLOCK)
        drawn[part] = _counts(_draws(names[part], replicates, seed))
    rows = np.fromiter((row_of[group] for group in groups), dtype=np.intp, count=len(groups))
    return drawn[rows].T


def _draws(groups: Sequence[str], count: int, seed: int) -> npt.NDArray[np.uint32]:
    """Draw uniform integers below 2**32, shape ``(groups, count)``, each row by its name alone."""
    raw = np.empty((len(groups), (count + 1) // 2), dtype="<u8")
    stream = np.random.Philox(key=0)
    start = stream.state  # to set a key in it takes a third of the time of a new generator
    for row, group in zip(raw, groups, strict=True):
        name = f"{seed}\n{group}".encode("utf-8", "surrogatepass")
        start["state"]["key"] = np.frombuffer(hashlib.sha256(name).digest(), "<u8", count=2)
        stream.state = start
        row[:] = stream.random_raw(row.size)
    return raw.view("<u4")[:, :count]


def _counts(draws: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Turn uniform draws into Poisson(1) counts by inverting the distribution function."""
    counts = np.zeros(draws.shape, dtype=np.uint8)
    for cut in _CUTS:
        counts += draws >= cut
    return counts


def percentile_interval(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Take the middle of the bootstrap replicates of a statistic.

    Args:
        values: One value a replicate, shape ``(B,)``; nan where it could not be computed.
        level: The share of the replicates within the interval, between 0 and 1.

    Returns:
        Low and high end; (nan, nan) if more than half of the replicates are nan, or there is none.

    Raises:
        ScoreError: If the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ScoreError(f"a confidence level of {level}; take one between 0 and 1, such as 0.95")
    given = np.asarray(values, dtype=np.float64)
    known = given[~np.isnan(given)]
    if not known.size or 2 * known.size < given.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
