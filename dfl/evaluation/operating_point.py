"""What is chosen on validation and then held fixed: a threshold, and the scores' calibration."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from dfl.errors import ScoreError
from dfl.evaluation.scores import checked_scores, probability
from dfl.types import FAKE, REAL

_ENOUGH = 1e-12  # gradient of the mean loss, in standardised scores

Floats = npt.NDArray[np.float64]


def best_threshold(score: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Choose the threshold with the highest balanced accuracy; a score above it says fake.

    Candidates are 0, the midpoints between neighbouring distinct scores, the highest score (nothing
    is fake) and the number just below the lowest (everything is). Of equally good ones the nearest
    to 0 is taken, of two as near the lower.

    Args:
        score: Finite margins or logits, shape ``(N,)``, higher = fake.
        label: ``REAL``, ``FAKE`` or ``UNKNOWN``, shape ``(N,)``; unknown rows are left out.

    Returns:
        The threshold; 0.0 with one class only or no row.

    Raises:
        ScoreError: If the shapes differ, a score is not finite, or a label is not 0, 1 or -1.
    """
    margin, truth = checked_scores(score, label)
    fakes, reals = np.sort(margin[truth == FAKE]), np.sort(margin[truth != FAKE])
    if not fakes.size or not reals.size:
        return 0.0
    values = np.unique(margin)
    low, high = values[:-1], values[1:]
    middle = low / 2 + high / 2  # the sum of both could overflow
    middle = np.where((middle < low) | (middle >= high), low, middle)  # neighbouring floats
    ends = (np.nextafter(values[0], -np.inf), values[-1])
    cuts = np.concatenate([[0.0, ends[0]], middle, [ends[1]]])
    cuts = cuts[np.isfinite(cuts)]
    found = fakes.size - np.searchsorted(fakes, cuts, side="right")
    kept = np.searchsorted(reals, cuts, side="right")
    gain = found * reals.size + kept * fakes.size  # integers, so equally good is exact
    best = cuts[gain == gain.max()]
    return float(best[np.lexsort((best, np.abs(best)))[0]])


def threshold_at_fpr(
    score: npt.ArrayLike, label: npt.ArrayLike, source: npt.ArrayLike, *, max_fpr: float
) -> float:
    """Choose the lowest threshold at which no source has more false positives than a share.

    It is the largest over the sources of the score that floor(``max_fpr`` * n) of a source's n
    photographs exceed: what is to hold for photographs of a source that was never seen is asked of
    the worst one, at the cost of recall.

    Args:
        score: Finite margins or logits, shape ``(N,)``, higher = fake; a score above the threshold
            says fake.
        label: ``REAL`` or ``FAKE``, shape ``(N,)``.
        source: Where each photograph is from, shape ``(N,)``; that of fakes does not matter.
        max_fpr: The share, in [0, 1).

    Returns:
        The threshold; 0.0 without a photograph.

    Raises:
        ScoreError: If the shapes differ, a score is not finite, or the share is out of range.
    """
    margin, truth = checked_scores(score, label)
    origin = np.asarray(source, dtype=object)
    if origin.shape != truth.shape:
        raise ScoreError(f"{origin.size} sources for {truth.size} scores; give one a score")
    if not 0 <= max_fpr < 1:
        raise ScoreError(f"max_fpr: a share must be in [0, 1), got {max_fpr}")
    cuts = []
    for name in dict.fromkeys(origin[truth == REAL]):
        own = np.sort(margin[(truth == REAL) & (origin == name)])[::-1]
        cuts.append(own[int(max_fpr * own.size)])
    return float(max(cuts, default=0.0))


def platt_scaling(score: npt.ArrayLike, label: npt.ArrayLike) -> tuple[float, float]:
    """Fit ``sigmoid(slope * score + intercept)`` to the labels, by the method of Platt (1999).

    His targets, (F + 1) / (F + 2) for each of F fakes and 1 / (R + 2) for each of R reals in place
    of 1 and 0, keep the fit finite where a threshold separates the classes. The slope is not
    negative, so a probability never ranks against its score. Where the best slope would be, or all
    scores are the same, it is 0 and the intercept the log-odds of the mean target: the probability
    is then the same for every score.

    Args:
        score: Finite margins or logits, shape ``(N,)``, higher = fake.
        label: ``REAL``, ``FAKE`` or ``UNKNOWN``, shape ``(N,)``; unknown rows are left out.

    Returns:
        Slope, at least 0, and intercept; (1.0, 0.0) with one class only or no row.

    Raises:
        ScoreError: If the shapes differ, a score is not finite, or a label is not 0, 1 or -1.
    """
    margin, truth = checked_scores(score, label)
    n_fake = int(np.count_nonzero(truth == FAKE))
    n_real = truth.size - n_fake
    if not n_fake or not n_real:
        return 1.0, 0.0
    target = np.where(truth == FAKE, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))
    flat = (0.0, float(np.log(target.mean()) - np.log1p(-target.mean())))
    size = float(np.abs(margin).max())
    if margin.min() == margin.max():
        return flat
    unit = margin / size  # first to [-1, 1]: the square of a huge score would overflow
    centre, spread = float(unit.mean()), float(unit.std())
    if not spread:
        return flat
    slope, intercept = _logistic_fit((unit - centre) / spread, target, flat[1])
    with np.errstate(over="ignore"):
        scaled = np.float64(slope) / spread / size
    if slope <= 0 or not np.isfinite(scaled):
        return flat
    return float(scaled), intercept - slope * centre / spread


def calibrated(score: npt.ArrayLike, scaling: tuple[float, float]) -> Floats:
    """Turn scores into calibrated probabilities of being fake.

    Args:
        score: Finite margins or logits of any shape, higher = fake.
        scaling: Slope and intercept from ``platt_scaling``.

    Returns:
        Values in [0, 1], of the same shape.
    """
    slope, intercept = scaling
    with np.errstate(over="ignore"):  # infinite log-odds are a probability of 0 or 1
        return probability(slope * np.asarray(score, dtype=np.float64) + intercept)


def _logistic_fit(feature: Floats, target: Floats, start: float) -> tuple[float, float]:
    """Minimise the log loss of one standardised feature, shape ``(N,)``; slope and intercept."""
    design = np.stack([feature, np.ones_like(feature)])

    def loss(weights: Floats) -> float:
        logit = weights @ design
        return float((np.logaddexp(0.0, logit) - target * logit).mean())

    def gradient(weights: Floats) -> Floats:
        return np.asarray(design @ (probability(weights @ design) - target) / target.size)

    def hessian(weights: Floats) -> Floats:
        prob = probability(weights @ design)
        return np.asarray((design * (prob * (1 - prob))) @ design.T / target.size)

    found = minimize(
        loss,
        [0.0, start],
        jac=gradient,
        hess=hessian,
        method="trust-exact",
        options={"gtol": _ENOUGH},
    )
    return float(found.x[0]), float(found.x[1])
