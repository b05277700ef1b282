import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
)

from dfl.errors import ScoreError
from dfl.evaluation import binary_metrics, dense_ranks


def reference_eer(score, label):
    """Walk over every score that occurs, highest first, and over 'nothing is fake'."""
    best = None
    for cut in [math.inf, *sorted(set(score.tolist()), reverse=True)]:
        says_fake = score >= cut
        fpr = np.mean(says_fake[label == 0])
        fnr = np.mean(~says_fake[label == 1])
        if best is None or abs(fpr - fnr) < best[0] - 1e-9:
            best = (abs(fpr - fnr), (fpr + fnr) / 2)
    return best[1]


def draws():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 400)
    smooth = rng.normal(size=400) + label
    yield "smooth", smooth, label
    yield "ties", np.round(smooth), label
    yield "two values", (smooth > 0.5).astype(float), label
    yield "huge", smooth * 1e3, label  # a sigmoid makes these all 0 or 1
    yield "tiny", smooth * 1e-9, label  # a sigmoid in float32 makes these all 0.5
    yield "inside [0, 1]", (smooth - smooth.min()) / np.ptp(smooth), label
    yield "constant", np.zeros(400), label
    yield "few fakes", smooth[:60], (np.arange(60) < 3).astype(int)


@pytest.mark.parametrize(("score", "label"), [pytest.param(s, t, id=n) for n, s, t in draws()])
def test_binary_metrics__equal_sklearn_and_numpy(score, label):
    metrics = binary_metrics(score, label)
    assert metrics["auroc"] == pytest.approx(roc_auc_score(label, score), abs=1e-6)
    assert metrics["ap"] == pytest.approx(average_precision_score(label, score), abs=1e-6)
    assert metrics["eer"] == pytest.approx(reference_eer(score, label), abs=1e-6)
    assert metrics["accuracy"] == accuracy_score(label, score > 0)
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, score > 0))
    assert metrics["n_fake"] == label.sum()
    assert metrics["n_real"] == (1 - label).sum()


def test_binary_metrics__extreme_scores_keep_their_order():
    score, label = np.array([1e3, 2e3, -1e3, -2e3, 3e3]), np.array([0, 1, 0, 0, 1])
    metrics = binary_metrics(score, label)
    assert metrics["auroc"] == 1.0
    assert metrics["ap"] == 1.0
    assert metrics["eer"] == 0.0
    assert metrics["accuracy"] == 0.8


def test_binary_metrics__a_score_at_the_threshold_says_real():
    assert binary_metrics([0.0, 0.0], [0, 1])["accuracy"] == 0.5
    assert binary_metrics([0.7, 0.8], [0, 1], threshold=0.7)["accuracy"] == 1.0


def test_binary_metrics__small_logits_are_not_probabilities():
    assert binary_metrics([0.2, 0.4, -0.1], [1, 1, 0])["accuracy"] == 1.0


@pytest.mark.parametrize("label", [0, 1])
def test_binary_metrics__one_class_is_nan_but_for_accuracy(label):
    metrics = binary_metrics([1.0, -1.0, 2.0, 3.0], [label] * 4)
    assert metrics["accuracy"] == (0.75 if label else 0.25)
    assert all(math.isnan(metrics[name]) for name in ("ap", "auroc", "eer", "balanced_accuracy"))


def test_binary_metrics__no_rows():
    metrics = binary_metrics([], [])
    assert math.isnan(metrics["accuracy"])
    assert metrics["n_real"] == metrics["n_fake"] == 0


def test_binary_metrics__unknown_rows_are_left_out():
    assert binary_metrics([1.0, -1.0, 9.0], [1, 0, -1]) == binary_metrics([1.0, -1.0], [1, 0])


@pytest.mark.parametrize(
    ("score", "label", "message"),
    [
        ([1.0, math.nan], [0, 1], "a score is nan"),
        ([1.0, 2.0], [0, 2], "a label is 2"),
        ([1.0, 2.0], [0], r"shape \(2,\) and labels of shape \(1,\)"),
    ],
)
def test_binary_metrics__refuses(score, label, message):
    with pytest.raises(ScoreError, match=message):
        binary_metrics(score, label)


def test_dense_ranks__keep_order_and_ties():
    np.testing.assert_array_equal(dense_ranks([5.0, -1e9, 5.0, 7.0]), [0.5, 0.0, 0.5, 1.0])
    np.testing.assert_array_equal(dense_ranks([2.0, 2.0]), [0.0, 0.0])
