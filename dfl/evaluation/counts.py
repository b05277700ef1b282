"""What a head gets right and wrong at every threshold, under many weightings of the same scores.

A bootstrap replicate is a weight for each row. The scores are sorted once; then every count is a
running sum over the weights, or a product of a matrix with them, for all weightings at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from dfl.types import FAKE

_BINS: Final = 15  # of the calibration error
_WIDE: Final = 128  # columns; from here on a loop over rows beats numpy's running sum

Floats = npt.NDArray[np.float64]
Reals = npt.NDArray[np.floating]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Ranking:
    """What does not depend on the weights; rows are fakes, then reals, both by falling score.

    K is the number of distinct scores; K_fake and K_real are those among fakes and among reals.
    """

    order: Rows  # (N,): the place of each row in the caller's arrays
    n_fake: int
    linear: Floats  # (rows, N): right on fakes, on reals; both at the validation threshold; gaps
    fake_ends: Rows  # (K_fake + 1,): how many fakes score at least as high as the k highest
    real_ends: Rows  # (K_real + 1,)
    fakes_at: Rows  # (K + 1,): how many distinct fake scores are among the k highest scores
    reals_at: Rows  # (K + 1,)
    fakes_before: Rows  # (K_real + 1,): how many distinct fake scores exceed the next real one
    reals_from: Rows  # (K_fake,): how many distinct real scores reach a fake score
    reals_above: Rows  # (K_fake,): how many exceed it

    @classmethod
    def of(
        cls,
        margin: Floats,
        label: npt.NDArray[np.int64],
        threshold: float = 0.0,
        validation: tuple[float, Floats] | None = None,
    ) -> "Ranking":
        """Sort scores.

        Args:
            margin: Finite scores, shape ``(N,)``, higher = fake.
            label: ``REAL`` or ``FAKE``, shape ``(N,)``.
            threshold: The head's own; a score above it says fake.
            validation: The threshold chosen on validation, and calibrated probabilities of fake,
                shape ``(N,)``; without it, what rests on them has no row in the counts.
        """
        fake = label == FAKE
        order = np.lexsort((-margin, ~fake))
        margin, fake = margin[order], fake[order]
        n_fake = int(np.count_nonzero(fake))
        right = (margin > threshold) == fake
        linear = [right & fake, right & ~fake]
        if validation is not None:
            chosen, prob = validation[0], validation[1][order]
            right = (margin > chosen) == fake
            linear += [right & fake, right & ~fake]
            edges = np.linspace(0, 1, _BINS + 1)[1:-1]
            bins, bin_of = np.unique(
                np.searchsorted(edges, prob, side="right"), return_inverse=True
            )
            linear += [*np.where(bin_of == np.arange(bins.size)[:, None], prob - fake, 0.0)]
        fakes, fake_counts = np.unique(-margin[:n_fake], return_counts=True)
        reals, real_counts = np.unique(-margin[n_fake:], return_counts=True)
        every = np.union1d(fakes, reals)
        return cls(
            order=order,
            n_fake=n_fake,
            linear=np.vstack(linear),
            fake_ends=np.append(0, np.cumsum(fake_counts)),
            real_ends=np.append(0, np.cumsum(real_counts)),
            fakes_at=np.append(0, np.searchsorted(fakes, every, side="right")),
            reals_at=np.append(0, np.searchsorted(reals, every, side="right")),
            fakes_before=np.append(np.searchsorted(fakes, reals, side="left"), fakes.size),
            reals_from=np.searchsorted(reals, fakes, side="right"),
            reals_above=np.searchsorted(reals, fakes, side="left"),
        )


class Counts:
    """Weighted counts of the rows of a ranking, for B weightings; a row of weight w counts w times.

    Attributes:
        n_fake: Fakes, shape ``(B,)``, as all that follow.
        n_real: Reals.
        true_fake: Fakes called fake at the head's own threshold.
        true_real: Reals called real there.
        found_fake: Fakes called fake at the threshold chosen on validation.
        found_real: Reals called real there.
        gaps: Sum of probability minus truth, by bin of the probability, shape ``(bins, B)``.

    Args:
        ranking: The rows.
        weight: Their weights in its order, float32 where sums are exact in it, shape ``(N, B)``.
    """

    def __init__(self, ranking: Ranking, weight: Reals) -> None:
        self._ranking = ranking
        self._weight = weight
        sums = (ranking.linear.astype(weight.dtype) @ weight).astype(np.float64)
        self.true_fake, self.true_real = sums[:2]
        self.found_fake, self.found_real = sums[2:3].sum(axis=0), sums[3:4].sum(axis=0)
        self.gaps = sums[4:]
        self.n_fake: Floats = weight[: ranking.n_fake].sum(axis=0, dtype=np.float64)
        self.n_real: Floats = weight[ranking.n_fake :].sum(axis=0, dtype=np.float64)

    @property
    def total(self) -> Floats:
        """All rows."""
        return self.n_fake + self.n_real

    @cached_property
    def found(self) -> Reals:
        """True positives where the k highest distinct scores of fakes count, (K_fake + 1, B)."""
        return _running_sum(self._weight[: self._ranking.n_fake], self._ranking.fake_ends)

    @cached_property
    def false(self) -> Reals:
        """False positives where the k highest distinct scores of reals count, (K_real + 1, B)."""
        return _running_sum(self._weight[self._ranking.n_fake :], self._ranking.real_ends)

    @cached_property
    def _step(self) -> Reals:
        return np.diff(self.found, axis=0)

    @cached_property
    def _reached(self) -> Reals:  # reals that score at least as high as each distinct fake score
        reached: Reals = self.false.take(self._ranking.reals_from, axis=0)
        return reached

    def curve(self) -> tuple[Floats, Floats]:
        """Give false and true positive rates, rising, each of shape ``(K + 1, B)``."""
        return (
            self.false[self._ranking.reals_at] / self.n_real,
            self.found[self._ranking.fakes_at] / self.n_fake,
        )

    def average_precision(self) -> Floats:
        """Average the precision at the score of each fake."""
        seen = np.maximum(self.found[1:] + self._reached, np.finfo(self._weight.dtype).tiny)
        precision = np.divide(self.found[1:], seen, dtype=np.float64)  # 0 only where the step is 0
        return np.asarray(np.einsum("kb,kb->b", self._step, precision) / self.n_fake)

    def auroc(self) -> Floats:
        """Give the share of pairs of a fake and a real that are in order; ties count half."""
        above = self.false.take(self._ranking.reals_above, axis=0)
        lost = np.einsum("kb,kb->b", self._step, self._reached + above)
        return np.asarray(1 - lost.astype(np.float64) / (2 * self.n_fake * self.n_real))

    def equal_error_rate(self) -> Floats:
        """Average both error rates at the threshold, among the scores that occur, of least gap.

        Where the rates differ least at two thresholds alike, it is the higher one (float32 may take
        the lower there).
        """
        width = self.found.shape[1]
        column = np.arange(width)
        # offsets into flat tables
        fakes_at, reals_at = self._ranking.fakes_at * width, self._ranking.reals_at * width
        n_fake, n_real = self.found[-1], self.false[-1]
        even = n_fake * n_real

        def surplus(k: Rows) -> Reals:  # FPR - FNR, times both counts, plus their product
            hits, errors = fakes_at.take(k) + column, reals_at.take(k) + column
            total: Reals = self.found.take(hits) * n_real + self.false.take(errors) * n_fake
            return total

        before = _last(lambda k: surplus(k) <= even, fakes_at.size, (width,))
        after = np.minimum(before + 1, fakes_at.size - 1)
        k = np.where(surplus(after) - even < even - surplus(before), after, before)
        fnr = (n_fake - self.found.take(fakes_at.take(k) + column)) / self.n_fake
        fpr = self.false.take(reals_at.take(k) + column) / self.n_real
        return np.asarray((fpr + fnr) / 2)

    def true_positive_rate(self, percent: float) -> Floats:
        """Give the largest true positive rate whose false positive rate is at most this.

        Thresholds are "at least this score", for scores that occur; 0 where there is none.
        """
        width = self.false.shape[1]
        column = np.arange(width)
        # Dividing by 100 last keeps whole limits whole.
        limit = (self.n_real * percent / 100).astype(self.false.dtype)
        k = _last(lambda k: self.false.take(k * width + column) <= limit, len(self.false), (width,))
        hits = self.found.take(self._ranking.fakes_before.take(k) * width + column)
        return np.asarray(hits / self.n_fake)


def _running_sum(rows: Reals, ends: Rows) -> Reals:
    """Sum the first k of N rows, for every k in ``ends``: (N, B) to (len(ends), B)."""
    total = np.zeros((len(rows) + 1, rows.shape[1]), rows.dtype)
    if rows.shape[1] < _WIDE:
        np.cumsum(rows, axis=0, out=total[1:])
    else:
        sums = [*total]
        for before, row, after in zip(sums, rows, sums[1:], strict=False):
            np.add(before, row, out=after)
    return total if len(ends) == len(total) else total.take(ends, axis=0)


def _last(
    holds: Callable[[Rows], npt.NDArray[np.bool_]], count: int, shape: tuple[int, ...]
) -> Rows:
    """Find by bisection, many at once, the last k below ``count`` at which a condition holds.

    It must hold at k = 0 and, once it has ceased to hold, not hold again.
    """
    place = np.zeros(shape, dtype=np.intp)
    while count > 1:
        half = count // 2
        step = place + half
        place = np.where(holds(step), step, place)
        count -= half
    return place
