"""The metrics of a study under many weightings of the same scores, all weightings at once.

A bootstrap replicate is a weight for each row. The scores are sorted once; then every metric is a
running sum over the weights, or a product of a matrix with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dfl.errors import ScoreError
from dfl.evaluation.metrics import checked_scores
from dfl.types import FAKE, UNKNOWN

__all__ = ["LOWER_IS_BETTER", "STUDY_METRICS", "weighted_metrics"]

STUDY_METRICS: Final = (
    "accuracy",
    "accuracy_at_val_threshold",
    "balanced_accuracy",
    "ap",
    "auroc",
    "eer",
    "tpr_at_fpr_1",
    "tpr_at_fpr_5",
    "calibration_error",
)
"""The metrics of a study, in this order; ``eer`` and ``calibration_error`` are better when lower,
the others when higher."""

LOWER_IS_BETTER: Final = frozenset({"eer", "calibration_error"})

_BINS: Final = 15  # of the calibration error
_WORKING_BYTES: Final = 32 * 2**20
_EXACT_IN_FLOAT32: Final = 4096  # 2 * fakes * reals stays below 2**24

_WIDE: Final = 128  # columns; from here on a loop over rows beats numpy's running sum

Floats = npt.NDArray[np.float64]
Reals = npt.NDArray[np.floating]
Rows = npt.NDArray[np.intp]


def weighted_metrics(
    score: npt.ArrayLike,
    label: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    threshold: float,
    prob: npt.ArrayLike,
) -> dict[str, Floats]:
    """Compute the study's metrics for B weightings of N scores; fake is the positive class.

    A row of weight w counts as w rows would. ``ap``, ``auroc`` and ``eer`` are those of
    ``binary_metrics`` without its rounding; where the rates differ least at two thresholds alike,
    ``eer`` is taken at the higher (float32 may take the lower there). ``tpr_at_fpr_1`` and ``_5``
    are the largest true positive rates among the thresholds "at least this score", for scores that
    occur, whose false positive rate is at most 1 % and 5 %; 0 if there is none.
    ``calibration_error`` is the expected calibration error (Naeini et al., AAAI 2015) of the
    probability of fake, over 15 bins of equal width, the lower edge belonging to a bin.

    Args:
        score: Finite margins or logits, shape ``(N,)``, higher = fake, own threshold 0.
        label: ``REAL`` or ``FAKE``, shape ``(N,)``.
        weights: Finite and not negative, shape ``(B, N)``. Integers whose memory runs along B (as
            ``group_weights`` makes them) are fastest.
        threshold: The threshold of ``accuracy_at_val_threshold``, chosen on validation; a score
            above it says fake.
        prob: Calibrated probabilities of fake, in [0, 1], shape ``(N,)``.

    Returns:
        ``STUDY_METRICS``, each of shape ``(B,)``, in [0, 1]. Where the weights leave one class
        only, all but the two accuracies and ``calibration_error`` are nan; where they leave no row,
        all are.

    Raises:
        ScoreError: If shapes differ, a score is not finite, a label is not 0 or 1, a weight is
            negative or not finite, or a probability is outside [0, 1].
    """
    margin, truth = checked_scores(score, label)
    if margin.size != np.size(score):
        raise ScoreError(f"a label is {UNKNOWN}; leave rows of unknown label out first")
    counts = _checked_weights(weights, margin.size)
    if np.isnan(threshold):
        raise ScoreError("the threshold is nan; choose one on validation, or take 0")
    plan = _plan(margin, truth == FAKE, threshold, _checked_prob(prob, margin.size))
    dtype = _working_type(counts)
    width = max(1, _WORKING_BYTES // (4 * dtype.itemsize * max(1, margin.size)))
    values = {name: np.empty(len(counts)) for name in STUDY_METRICS}
    for start in range(0, len(counts), width):
        part = slice(start, start + width)
        weight = counts.T[:, part][plan.order].astype(dtype)
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the nan of a missing class
            for name, value in (_at_thresholds(plan, weight) | _of_ranks(plan, weight)).items():
                values[name][part] = value
    return values


@dataclass(frozen=True)
class _Plan:
    """What does not depend on the weights; rows are fakes, then reals, both by falling score.

    K is the number of distinct scores; K_fake and K_real are those among fakes and among reals.
    """

    order: Rows  # (N,): the place of each row in the caller's arrays
    n_fake: int
    linear: Floats  # (3 + bins, N): hits on fakes, on reals, at the threshold; gaps by bin
    fake_ends: Rows  # (K_fake + 1,): how many fakes score at least as high as the k highest
    real_ends: Rows  # (K_real + 1,)
    fakes_at: Rows  # (K + 1,): how many distinct fake scores are among the k highest scores
    reals_at: Rows  # (K + 1,)
    fakes_before: Rows  # (K_real + 1,): how many distinct fake scores exceed the next real one
    reals_from: Rows  # (K_fake,): how many distinct real scores reach a fake score
    reals_above: Rows  # (K_fake,): how many exceed it


def _plan(margin: Floats, fake: npt.NDArray[np.bool_], threshold: float, prob: Floats) -> _Plan:
    order = np.lexsort((-margin, ~fake))
    margin, fake, prob = margin[order], fake[order], prob[order]
    n_fake = int(np.count_nonzero(fake))
    fakes, fake_counts = np.unique(-margin[:n_fake], return_counts=True)
    reals, real_counts = np.unique(-margin[n_fake:], return_counts=True)
    every = np.unique(-margin)
    hit = (margin > 0) == fake
    edges = np.linspace(0, 1, _BINS + 1)[1:-1]
    bins, bin_of = np.unique(np.searchsorted(edges, prob, side="right"), return_inverse=True)
    gap = np.where(bin_of == np.arange(bins.size)[:, None], prob - fake, 0.0)
    return _Plan(
        order=order,
        n_fake=n_fake,
        linear=np.vstack([hit & fake, hit & ~fake, (margin > threshold) == fake, gap]),
        fake_ends=np.append(0, np.cumsum(fake_counts)),
        real_ends=np.append(0, np.cumsum(real_counts)),
        fakes_at=np.append(0, np.searchsorted(fakes, every, side="right")),
        reals_at=np.append(0, np.searchsorted(reals, every, side="right")),
        fakes_before=np.append(np.searchsorted(fakes, reals, side="left"), fakes.size),
        reals_from=np.searchsorted(reals, fakes, side="right"),
        reals_above=np.searchsorted(reals, fakes, side="left"),
    )


def _at_thresholds(plan: _Plan, weight: Reals) -> dict[str, Floats]:
    """Compute what is linear in the weights, for ``weight`` of shape (N, B)."""
    sums = (plan.linear.astype(weight.dtype) @ weight).astype(np.float64)
    n_fake = weight[: plan.n_fake].sum(axis=0, dtype=np.float64)
    n_real = weight[plan.n_fake :].sum(axis=0, dtype=np.float64)
    total = n_fake + n_real
    return {
        "accuracy": (sums[0] + sums[1]) / total,
        "accuracy_at_val_threshold": sums[2] / total,
        "balanced_accuracy": (sums[0] / n_fake + sums[1] / n_real) / 2,
        "calibration_error": np.abs(sums[3:]).sum(axis=0) / total,
    }


def _of_ranks(plan: _Plan, weight: Reals) -> dict[str, Floats]:
    """Compute what depends on the order of the scores, for ``weight`` of shape (N, B)."""
    found = _running_sum(weight[: plan.n_fake], plan.fake_ends)  # true positives, (K_fake + 1, B)
    false = _running_sum(weight[plan.n_fake :], plan.real_ends)  # false positives
    n_fake, n_real = found[-1].astype(np.float64), false[-1].astype(np.float64)
    step = np.diff(found, axis=0)
    wrong = false[plan.reals_from]
    seen = np.maximum(found[1:] + wrong, np.finfo(weight.dtype).tiny)  # 0 only where step is 0
    precision = np.einsum("kb,kb->b", step, np.divide(found[1:], seen, dtype=np.float64))
    lost = np.einsum("kb,kb->b", step, wrong + false[plan.reals_above])
    values = {"ap": precision / n_fake, "auroc": 1 - lost / (2 * n_fake * n_real)}
    values |= _at_operating_points(plan, found, false)
    one_class = (n_fake == 0) | (n_real == 0)
    return {name: np.where(one_class, np.nan, value) for name, value in values.items()}


def _at_operating_points(plan: _Plan, found: Reals, false: Reals) -> dict[str, Floats]:
    """Find the points of the curve that ``eer`` and the true positive rates ask for."""
    width = found.shape[1]
    column = np.arange(width)
    fakes_at, reals_at = plan.fakes_at * width, plan.reals_at * width  # offsets into flat tables
    n_fake, n_real = found[-1], false[-1]
    even = n_fake * n_real

    def surplus(k: Rows) -> Reals:  # FPR - FNR, times both counts, plus their product
        hits, errors = fakes_at.take(k) + column, reals_at.take(k) + column
        total: Reals = found.take(hits) * n_real + false.take(errors) * n_fake
        return total

    before = _last(lambda k: surplus(k) <= even, fakes_at.size, (width,))
    after = np.minimum(before + 1, fakes_at.size - 1)
    k = np.where(surplus(after) - even < even - surplus(before), after, before)
    fnr = (n_fake - found.take(fakes_at.take(k) + column)) / n_fake.astype(np.float64)
    fpr = false.take(reals_at.take(k) + column) / n_real.astype(np.float64)

    # Dividing by 100 last keeps whole limits whole.
    limit = (n_real.astype(np.float64) * [[1.0], [5.0]] / 100).astype(false.dtype)
    k = _last(lambda k: false.take(k * width + column) <= limit, len(false), (2, width))
    tpr = found.take(plan.fakes_before.take(k) * width + column) / n_fake.astype(np.float64)
    return {"eer": (fpr + fnr) / 2, "tpr_at_fpr_1": tpr[0], "tpr_at_fpr_5": tpr[1]}


def _running_sum(rows: Reals, ends: Rows) -> Reals:
    """Sum the first k of N rows, for every k in ``ends``: (N, B) to (len(ends), B)."""
    total = np.zeros((len(rows) + 1, rows.shape[1]), rows.dtype)
    if rows.shape[1] < _WIDE:
        np.cumsum(rows, axis=0, out=total[1:])
    else:
        sums = [*total]
        for before, row, after in zip(sums, rows, sums[1:], strict=False):
            np.add(before, row, out=after)
    return total if len(ends) == len(total) else total[ends]


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


def _checked_weights(weights: npt.ArrayLike, rows: int) -> npt.NDArray[np.generic]:
    counts = np.asarray(weights)
    if counts.ndim != 2 or counts.shape[1] != rows:
        raise ScoreError(
            f"weights of shape {counts.shape} for {rows} scores; give (replicates, {rows})"
        )
    if counts.dtype.kind not in "biuf":
        raise ScoreError(f"weights of type {counts.dtype}; give numbers")
    if counts.size and counts.dtype.kind in "if":
        lowest, highest = counts.min(), counts.max()  # nan passes through both
        if not (lowest >= 0 and np.isfinite(highest)):
            wrong = highest if lowest >= 0 else lowest
            raise ScoreError(f"a weight is {wrong}; weights must be finite and 0 or more")
    return counts


def _checked_prob(prob: npt.ArrayLike, rows: int) -> Floats:
    chance = np.asarray(prob, dtype=np.float64)
    if chance.shape != (rows,):
        raise ScoreError(
            f"probabilities of shape {chance.shape} for {rows} scores; give one a score"
        )
    odd = ~((chance >= 0) & (chance <= 1))
    if odd.any():
        raise ScoreError(f"a probability is {chance[odd][0]}; probabilities lie within [0, 1]")
    return chance


def _working_type(counts: npt.NDArray[np.generic]) -> np.dtype[np.floating]:
    """Take float32, which is faster, where whole counts are exact in it."""
    whole = counts.dtype.kind in "biu"
    highest = int(counts.max(initial=0)) if whole else 0
    exact = whole and counts.shape[1] * highest <= _EXACT_IN_FLOAT32
    return np.dtype(np.float32) if exact else np.dtype(np.float64)
