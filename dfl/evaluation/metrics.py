"""The metrics: what each is called, what it tells, and how it is computed.

This table is the only place that knows them: tables, the page of a study, W&B and the terminal take
names, titles, meanings and directions from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dfl.errors import ScoreError
from dfl.evaluation.counts import Counts, Floats, Ranking
from dfl.evaluation.scores import checked_scores
from dfl.types import UNKNOWN

_EXACT_IN_FLOAT32: Final = 4096  # 2 * fakes * reals stays below 2**24


@dataclass(frozen=True)
class Metric:
    """A metric of scores against labels, in [0, 1]; fake is the positive class.

    Attributes:
        name: Its column in tables.
        title: What a person calls it.
        meaning: What it tells, for somebody who is not a statistician.
        compute: Computes it from weighted counts, shape ``(B,)``.
        heading: Its heading in the results table of a head; empty where it is not in it.
        lower_is_better: Whether it is an error.
        chance: What guessing gets, where that does not depend on how many are real and fake.
        both_classes: Whether it is nan where there are only reals or only fakes.
        on_validation: Whether it rests on the threshold or the calibration chosen on validation.
        has_interval: Whether percentiles of bootstrap replicates are an interval of it.
    """

    name: str
    title: str
    meaning: str
    compute: Callable[[Counts], Floats]
    heading: str = ""
    lower_is_better: bool = False
    chance: float | None = None
    both_classes: bool = True
    on_validation: bool = False
    has_interval: bool = True

    @property
    def sign(self) -> float:
        """1, or -1 for an error: times this, higher is better."""
        return -1.0 if self.lower_is_better else 1.0


METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            "Accuracy (own threshold)",
            "Share of images judged right at the head's own threshold, where a score above 0 says "
            "fake.",
            lambda counts: (counts.true_fake + counts.true_real) / counts.total,
            heading="Acc",
            both_classes=False,
        ),
        Metric(
            "accuracy_at_val_threshold",
            "Accuracy (validation threshold)",
            "Share of images judged right at the threshold chosen on validation images: that of "
            "the best balanced accuracy or, where validation is nested, of a false positive rate. "
            "Where reals and fakes are not equally many, guessing does not give 50 %.",
            lambda counts: (counts.found_fake + counts.found_real) / counts.total,
            both_classes=False,
            on_validation=True,
        ),
        Metric(
            "fpr_at_val_threshold",
            "False positive rate (validation threshold)",
            "Share of reals called fake at the threshold chosen on validation. Lower is better.",
            lambda counts: 1 - counts.found_real / counts.n_real,
            lower_is_better=True,
            both_classes=False,
            on_validation=True,
        ),
        Metric(
            "tpr_at_val_threshold",
            "True positive rate (validation threshold)",
            "Share of fakes caught at the threshold chosen on validation.",
            lambda counts: counts.found_fake / counts.n_fake,
            both_classes=False,
            on_validation=True,
        ),
        Metric(
            "balanced_accuracy",
            "Balanced accuracy (own threshold)",
            "Mean of the share of reals and the share of fakes judged right at the head's own "
            "threshold, where a score above 0 says fake; 50 % is chance. Unlike accuracy it does "
            "not reward calling everything by the larger class.",
            lambda counts: (
                (counts.true_fake / counts.n_fake + counts.true_real / counts.n_real) / 2
            ),
            chance=0.5,
        ),
        Metric(
            "ap",
            "Average precision",
            "How pure the list of suspects is when sorted by score. Chance is the share of fakes.",
            Counts.average_precision,
            heading="AP",
        ),
        Metric(
            "auroc",
            "AUROC",
            "How often a random fake scores above a random real; 50 % is chance. Needs no "
            "threshold.",
            Counts.auroc,
            heading="AUROC",
            chance=0.5,
        ),
        Metric(
            "eer",
            "Equal error rate",
            "The error rate at the threshold where reals and fakes are mistaken equally often; "
            "50 % is chance. Lower is better.",
            Counts.equal_error_rate,
            heading="EER",
            lower_is_better=True,
            chance=0.5,
        ),
        Metric(
            "tpr_at_fpr_1",
            "TPR at 1 % FPR",
            "Share of fakes caught when 1 in 100 reals may be accused wrongly.",
            lambda counts: counts.true_positive_rate(1),
        ),
        Metric(
            "tpr_at_fpr_5",
            "TPR at 5 % FPR",
            "Share of fakes caught when 5 in 100 reals may be accused wrongly.",
            lambda counts: counts.true_positive_rate(5),
        ),
        # Expected calibration error (Naeini et al., AAAI 2015) over 15 bins of equal width, the
        # lower edge belonging to a bin. Resampled images repeat, which makes the error of a bin
        # larger than it is: percentiles of replicates hold the truth far less often than they say.
        Metric(
            "calibration_error",
            "Calibration error",
            "How far the stated probabilities are from what happens. Lower is better.",
            lambda counts: np.abs(counts.gaps).sum(axis=0) / counts.total,
            lower_is_better=True,
            both_classes=False,
            on_validation=True,
            has_interval=False,
        ),
    )
}
"""All metrics by name, in the order of every table."""

TABLE_METRICS: Final = tuple(name for name, metric in METRICS.items() if metric.heading)
"""Those of the results table of a head, which are also logged at the end of an epoch."""


def weighted_metrics(
    score: npt.ArrayLike,
    label: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    val_threshold: float,
    prob: npt.ArrayLike,
    working_bytes: int = 32 * 2**20,
) -> dict[str, Floats]:
    """Compute all metrics for B weightings of N scores.

    A row of weight w counts as w rows would.

    Args:
        score: Finite margins or logits, shape ``(N,)``, higher = fake, own threshold 0.
        label: ``REAL`` or ``FAKE``, shape ``(N,)``.
        weights: Finite and not negative, shape ``(B, N)``. Integers whose memory runs along B (as
            ``group_weights`` makes them) are fastest.
        val_threshold: The threshold chosen on validation; a score above it says fake.
        prob: Calibrated probabilities of fake, in [0, 1], shape ``(N,)``.
        working_bytes: How much memory to use for as many weightings as are computed at once.

    Returns:
        Every metric of ``METRICS``, each of shape ``(B,)``, in [0, 1]. Where the weights leave one
        class only, those that need both classes are nan; where they leave no row, all are.

    Raises:
        ScoreError: If shapes differ, a score is not finite, a label is not 0 or 1, a weight is
            negative or not finite, or a probability is outside [0, 1].
    """
    margin, truth = checked_scores(score, label)
    if margin.size != np.size(score):
        raise ScoreError(f"a label is {UNKNOWN}; leave rows of unknown label out first")
    counts = _checked_weights(weights, margin.size)
    if np.isnan(val_threshold):
        raise ScoreError("the threshold is nan; choose one on validation, or take 0")
    chosen = val_threshold, _checked_prob(prob, margin.size)
    ranking = Ranking.of(margin, truth, validation=chosen)
    return _computed(ranking, counts, tuple(METRICS.values()), working_bytes)


def binary_metrics(
    score: npt.ArrayLike, label: npt.ArrayLike, *, threshold: float = 0.0
) -> dict[str, float]:
    """Compute the metrics of scores against labels that rest on nothing chosen on validation.

    Args:
        score: Margins or logits, shape ``(N,)``, higher = fake.
        label: ``REAL``, ``FAKE`` or ``UNKNOWN``, shape ``(N,)``; unknown rows are left out.
        threshold: The head's own threshold: a score above it says fake, a score at it real.

    Returns:
        Metrics by name, in [0, 1], and the counts ``n_real`` and ``n_fake``. With one class only,
        those that need both classes are nan; with no row at all, all are.

    Raises:
        ScoreError: If the shapes differ, a score is not finite, or a label is not 0, 1 or -1.
    """
    margin, truth = checked_scores(score, label)
    ranking = Ranking.of(margin, truth, threshold)
    metrics = tuple(metric for metric in METRICS.values() if not metric.on_validation)
    values = _computed(ranking, np.ones((1, margin.size), np.uint8), metrics)
    return {name: float(value[0]) for name, value in values.items()} | {
        "n_real": float(margin.size - ranking.n_fake),
        "n_fake": float(ranking.n_fake),
    }


def roc_points(score: npt.ArrayLike, label: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Compute the receiver operating characteristic, one point a distinct score.

    Args:
        score: Finite margins or logits, shape ``(N,)``, higher = fake.
        label: ``REAL`` or ``FAKE``, both present, shape ``(N,)``.

    Returns:
        False positive rates and true positive rates, rising from 0 to 1, each of shape ``(K + 1,)``
        for K distinct scores.
    """
    margin, truth = checked_scores(score, label)
    fpr, tpr = Counts(Ranking.of(margin, truth), np.ones((margin.size, 1))).curve()
    return fpr[:, 0], tpr[:, 0]


def _computed(
    ranking: Ranking,
    weights: npt.NDArray[np.generic],
    metrics: tuple[Metric, ...],
    working_bytes: int = 32 * 2**20,
) -> dict[str, Floats]:
    dtype = _working_type(weights)
    width = max(1, working_bytes // (4 * dtype.itemsize * max(1, weights.shape[1])))
    values = {metric.name: np.empty(len(weights)) for metric in metrics}
    for start in range(0, len(weights), width):
        part = slice(start, start + width)
        counts = Counts(ranking, weights.T[:, part][ranking.order].astype(dtype))
        one_class = (counts.n_fake == 0) | (counts.n_real == 0)
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the nan of a missing class
            for metric in metrics:
                value = metric.compute(counts)
                if metric.both_classes:
                    value = np.where(one_class, np.nan, value)
                # a difference of sums of fractions may be less than nothing by a rounding error
                values[metric.name][part] = np.clip(value, 0, 1)
    return values


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
