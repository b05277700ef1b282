import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import balanced_accuracy_score

from dfl.errors import ScoreError
from dfl.evaluation import (
    best_threshold,
    calibrated,
    platt_scaling,
    probability,
    threshold_at_fpr,
)


def samples():
    rng = np.random.default_rng(4)
    for _ in range(20):
        label = np.append(rng.integers(0, 2, rng.integers(1, 40)), [0, 1])
        digits = int(rng.integers(0, 3))
        yield np.round(rng.normal(rng.normal(), 2, label.size) + label, digits), label


def platt_loss(score, label, slope, intercept):
    n_fake, n_real = label.sum(), (1 - label).sum()
    target = np.where(label == 1, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))
    logit = slope * score + intercept
    return np.sum(np.logaddexp(0, logit) - target * logit)


def test_best_threshold__no_cut_is_better_and_no_equal_midpoint_nearer_0():
    for score, label in samples():
        chosen = best_threshold(score, label)
        best = balanced_accuracy_score(label, score > chosen)
        values = np.unique(score)
        middles = (values[1:] + values[:-1]) / 2
        cuts = [0.0, *middles, values[0] - 1, values[-1] + 1]
        accuracy = [balanced_accuracy_score(label, score > cut) for cut in cuts]
        assert best == pytest.approx(max(accuracy), abs=1e-12)
        tied = [abs(c) for c, a in zip(cuts[:-2], accuracy, strict=False) if a > best - 1e-12]
        assert not tied or abs(chosen) <= min(tied) + 1e-12


@pytest.mark.parametrize(
    ("score", "label", "threshold"),
    [
        ([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], 2.5),
        ([-1.0, 2.0, 3.0], [0, 1, 1], 0.0),  # 0 is as good as the midpoint 0.5
        ([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], 1.5),  # 3.5 is as good
        ([-4.0, -3.0, -2.0, -1.0], [0, 1, 0, 1], -1.5),  # -3.5 is as good
        ([-2.0, -1.0, 1.0, 2.0, -0.5, 0.5], [0, 1, 0, 1, 0, 1], 0.0),
        ([-3.0, -1.0, 1.0, 3.0], [0, 1, 0, 1], -2.0),  # 2.0 is as good and as near
        ([5.0, 5.0], [0, 1], 0.0),
        ([2.0, 1.0], [0, 1], 0.0),  # inverted: everything fake is the best there is
        ([-1.0, 1.0], [1, 0], 1.0),  # and here nothing is
        ([1e308, 1.6e308], [0, 1], 1.3e308),
        ([1.0, 2.0, 3.0, 9.0], [0, 1, 1, -1], 1.5),
    ],
)
def test_best_threshold__chooses(score, label, threshold):
    assert best_threshold(score, label) == pytest.approx(threshold, rel=1e-12)


@pytest.mark.parametrize("low", [1.0, math.nextafter(1.0, 2.0)])  # half-way rounds down, and up
def test_best_threshold__between_neighbouring_floats(low):
    assert best_threshold([low, math.nextafter(low, 2.0)], [0, 1]) == low


@pytest.mark.parametrize(("score", "label"), [([], []), ([3.0], [1]), ([3.0, 4.0], [0, -1])])
def test_best_threshold__is_0_without_two_classes(score, label):
    assert best_threshold(score, label) == 0.0


@pytest.mark.parametrize("function", [best_threshold, platt_scaling])
def test_operating_point__refuses_a_score_that_is_no_number(function):
    with pytest.raises(ScoreError, match="a score is nan; scores must be finite"):
        function([math.nan, 1.0], [0, 1])


def test_platt_scaling__minimises_the_log_loss_of_smoothed_targets():
    for score, label in samples():
        slope, intercept = platt_scaling(score, label)
        best = minimize(
            lambda x, s=score, t=label: platt_loss(s, t, *x),
            [0.5, 0.0],
            bounds=[(0, None), (None, None)],
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-10},
        )
        assert slope >= 0
        assert platt_loss(score, label, slope, intercept) <= best.fun + 1e-8
        np.testing.assert_allclose([slope, intercept], best.x, atol=1e-3)


def test_platt_scaling__recovers_the_logit_of_a_large_sample():
    rng = np.random.default_rng(1)
    score = rng.normal(size=200_000)
    label = (rng.random(score.size) < probability(3 * score - 1)).astype(int)
    assert platt_scaling(score, label) == pytest.approx((3, -1), abs=0.05)


@pytest.mark.parametrize("size", [1e-300, 1e-9, 1.0, 1e9, 1e300])
@pytest.mark.parametrize("count", [1, 2, 500])
def test_platt_scaling__separable_scores_of_any_size_give_the_targets(size, count):
    score, label = size * np.repeat([-1.0, 1.0], count), np.repeat([0, 1], count)
    prob = calibrated(score, platt_scaling(score, label))
    np.testing.assert_allclose(prob[label == 1], (count + 1) / (count + 2), atol=1e-6)
    np.testing.assert_allclose(prob[label == 0], 1 / (count + 2), atol=1e-6)


def test_platt_scaling__an_outlier_and_an_offset_do_not_upset_it():
    score = np.array([1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3, 1e9])
    label = np.array([0, 0, 1, 1, 1])
    slope, intercept = platt_scaling(score, label)
    assert slope > 0
    assert platt_loss(score, label, slope, intercept) < platt_loss(score, label, 0, 0.27)


@pytest.mark.parametrize(
    ("score", "label"), [([2.0, 1.0, 0.0], [0, 1, 1]), ([5.0, 5.0, 5.0], [0, 1, 1])]
)
def test_platt_scaling__a_head_without_skill_gets_one_probability(score, label):
    slope, intercept = platt_scaling(score, label)
    assert slope == 0.0
    mean_target = (2 * 3 / 4 + 1 / 3) / 3
    assert calibrated([-9.0, 9.0], (slope, intercept)) == pytest.approx([mean_target] * 2)


@pytest.mark.parametrize(("score", "label"), [([], []), ([3.0], [1]), ([3.0, 4.0], [0, -1])])
def test_platt_scaling__leaves_scores_alone_without_two_classes(score, label):
    assert platt_scaling(score, label) == (1.0, 0.0)


def test_platt_scaling__leaves_unknown_rows_out():
    with_unknown = platt_scaling([1.0, 2.0, 0.5, 99.0], [0, 1, 1, -1])
    assert with_unknown == platt_scaling([1.0, 2.0, 0.5], [0, 1, 1])


def test_calibrated__is_the_logistic_function_of_the_scaled_score():
    score = np.array([[-2.0, 0.0], [1.0, 1e308]])
    prob = calibrated(score, (10.0, -1.0))
    assert prob.shape == (2, 2)
    expected = [1 / (1 + math.exp(21)), 1 / (1 + math.e), 1 / (1 + math.exp(-9)), 1.0]
    np.testing.assert_allclose(prob.ravel(), expected, rtol=1e-12)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.integers(-5, 5)), max_size=60),
    st.floats(0, 0.99),
)
def test_threshold_at_fpr__is_the_lowest_score_that_keeps_to_it(rows, share) -> None:
    source, label, score = (
        (np.array(each) for each in zip(*rows, strict=True))
        if rows
        else (np.array([], dtype=object), np.array([], dtype=int), np.array([]))
    )
    threshold = threshold_at_fpr(score, label, source, max_fpr=share)

    def keeps(cut: float) -> bool:
        rates = [
            (np.mean(score[own] > cut), own.sum())
            for own in ((label == 0) & (source == name) for name in "abc")
            if own.any()
        ]
        return all(rate * count <= share * count + 1e-9 for rate, count in rates)

    assert keeps(threshold)
    reals = np.unique(score[label == 0])
    assert all(not keeps(cut) for cut in reals if cut < threshold)
    assert threshold in (reals if reals.size else [0.0])


@pytest.mark.parametrize(
    ("source", "share", "message"),
    [(["a"], 0.1, "1 sources for 2 scores"), (["a", "b"], 1.0, "must be in .0, 1., got 1.0")],
)
def test_threshold_at_fpr__refuses(source, share, message) -> None:
    with pytest.raises(ScoreError, match=message):
        threshold_at_fpr([0.1, 0.2], [0, 1], source, max_fpr=share)
