import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_eer,
)

from dfl.errors import ScoreError
from dfl.evaluation import METRICS, binary_metrics, probability, roc_points, weighted_metrics
from tests.evaluation.reference import reference

ONE_CLASS_ENOUGH = ("accuracy", "accuracy_at_val_threshold", "calibration_error")
OF_ONE_CLASS = ("fpr_at_val_threshold", "tpr_at_val_threshold")


def draws():
    rng = np.random.default_rng(5)
    label = rng.integers(0, 2, 150)
    smooth = rng.normal(size=150) + label
    yield "smooth", smooth, label
    yield "ties", np.round(smooth), label
    yield "some ties", np.round(smooth, 1), label
    yield "constant", np.zeros(150), label
    yield "inverted", -smooth, label
    yield "separable", label * 2.0 - 1, label
    yield "huge", smooth * 1e300, label
    yield "few fakes", smooth[:60], (np.arange(60) < 3).astype(int)
    yield "few reals", smooth[:60], (np.arange(60) >= 3).astype(int)
    yield "fakes alone", smooth[:9], np.ones(9, int)
    yield "reals alone", smooth[:9], np.zeros(9, int)
    yield "two rows", np.array([0.5, -0.5]), np.array([1, 0])
    yield "one row", np.array([0.5]), np.array([1])
    yield "no row", np.zeros(0), np.zeros(0, int)


CASES = [pytest.param(s, t, id=name) for name, s, t in draws()]


def some_weights(count, rows, high=4):
    weights = np.random.default_rng(7).integers(0, high, (count, rows)).astype(np.uint8)
    weights[0] = 1
    weights[1] = 0
    return weights


@pytest.mark.parametrize(("score", "label"), CASES)
def test_weighted_metrics__equal_repeated_rows(score, label):
    prob, weights = probability(score * 0.7 + 0.1), some_weights(12, score.size)
    found = weighted_metrics(score, label, weights, val_threshold=0.3, prob=prob)
    assert tuple(sorted(found)) == tuple(sorted(METRICS))
    for k, weight in enumerate(weights):
        rows = np.repeat(np.arange(score.size), weight)
        expected = reference(score[rows], label[rows], prob[rows], 0.3)
        values = {name: value[k] for name, value in found.items()}
        assert values == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert all(v.shape == (12,) and v.dtype == np.float64 for v in found.values())


@pytest.mark.parametrize(("score", "label"), CASES)
def test_weighted_metrics__a_weight_is_a_repetition(score, label):
    weight = some_weights(3, score.size)[2]
    rows = np.repeat(np.arange(score.size), weight)
    prob = probability(score)
    at_once = weighted_metrics(score, label, weight[None], val_threshold=0.3, prob=prob)
    repeated = weighted_metrics(
        score[rows],
        label[rows],
        np.ones((1, rows.size), np.uint8),
        val_threshold=0.3,
        prob=prob[rows],
    )
    rounded = {"ap": 1e-12, "calibration_error": 1e-6}  # sums of fractions; all others of counts
    for name in METRICS:
        np.testing.assert_allclose(
            at_once[name], repeated[name], rtol=0, atol=rounded.get(name, 0), err_msg=name
        )


SCORES = st.integers(-4, 4).map(float) | st.floats(-10, 10)  # with ties and without
ROWS = st.tuples(SCORES, st.integers(0, 1), st.floats(0, 1), st.floats(0.01, 100) | st.just(0.0))


@given(st.lists(ROWS, min_size=1, max_size=40), SCORES)
@example([(0.0, 1, 0.0, 1.2999999999999998), (1.0, 0, 0.0, 1.5), (-1.0, 1, 0.0, 33.0)], 0.0)
def test_weighted_metrics__are_those_of_sklearn_with_sample_weights(rows, threshold):
    score, label, prob, weight = (np.array(column) for column in zip(*rows, strict=True))
    assume((np.bincount(label, weight, minlength=2) > 0).all())
    found = weighted_metrics(score, label, weight[None], val_threshold=threshold, prob=prob)
    args = {"sample_weight": weight}
    expected = {
        "accuracy": accuracy_score(label, score > 0, **args),
        "accuracy_at_val_threshold": accuracy_score(label, score > threshold, **args),
        "fpr_at_val_threshold": 1 - recall_score(label, score > threshold, pos_label=0, **args),
        "tpr_at_val_threshold": recall_score(label, score > threshold, **args),
        "balanced_accuracy": balanced_accuracy_score(label, score > 0, **args),
        "ap": average_precision_score(label, score, **args),
        "auroc": roc_auc_score(label, score, **args),
    }
    values = {name: found[name][0] for name in expected}
    assert values == pytest.approx(expected, abs=1e-9)
    assert all(0 <= value[0] <= 1 for value in found.values())


@given(
    st.lists(st.tuples(SCORES, st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
    st.data(),
)
def test_weighted_metrics__do_not_depend_on_row_order_or_scale(rows, data):
    """The metrics by rank keep their values under any rising function of the scores, too."""
    counts = st.lists(st.integers(0, 5), min_size=len(rows), max_size=len(rows))
    weights = np.array(data.draw(st.lists(counts, min_size=1, max_size=4)))
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    score, label, prob = (np.array(column) for column in zip(*rows, strict=True))
    found = weighted_metrics(score, label, weights, val_threshold=0.5, prob=prob)
    _, rank = np.unique(score, return_inverse=True)
    other = weighted_metrics(
        rank[order], label[order], weights[:, order], val_threshold=0.5, prob=prob[order]
    )
    for name in ("ap", "auroc", "eer", "tpr_at_fpr_1", "tpr_at_fpr_5", "calibration_error"):
        np.testing.assert_allclose(other[name], found[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "ap", "auroc", "eer"])
def test_weighted_metrics__ones_are_binary_metrics(name):
    rng = np.random.default_rng(2)
    label = np.append(rng.integers(0, 2, 80), [0, 1, 1])  # odd counts: no two gaps are the same
    score = np.round(rng.normal(size=83) + label, 1)
    found = weighted_metrics(
        score, label, np.ones((1, 83)), val_threshold=0, prob=probability(score)
    )
    assert found[name][0] == pytest.approx(binary_metrics(score, label)[name], abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_weighted_metrics__type_and_layout_of_the_weights_do_not_matter(dtype, order):
    _, score, label = next(draws())
    prob, weights = probability(score), some_weights(200, 150)
    plain = weighted_metrics(score, label, weights, val_threshold=0.3, prob=prob)
    other = weighted_metrics(
        score, label, weights.astype(dtype, order=order), val_threshold=0.3, prob=prob
    )
    for name in METRICS:
        np.testing.assert_allclose(other[name], plain[name], atol=1e-6)


def test_weighted_metrics__fractional_weights_scale():
    _, score, label = next(draws())
    prob, weights = probability(score), some_weights(5, 150)
    whole = weighted_metrics(score, label, weights, val_threshold=0.3, prob=prob)
    quarter = weighted_metrics(score, label, weights / 4, val_threshold=0.3, prob=prob)
    for name in METRICS:
        np.testing.assert_allclose(quarter[name], whole[name], atol=1e-6)


def test_weighted_metrics__large_weights_are_counted_exactly():
    score, label = np.array([0.1, 0.2, 0.3, -0.4]), np.array([0, 1, 1, 0])
    weights = np.array([[2**25 + 1, 2**25 - 1, 1, 3]])
    found = weighted_metrics(score, label, weights, val_threshold=0, prob=probability(score))
    assert found["accuracy"][0] == (2**25 + 3) / (2**26 + 4)
    assert found["auroc"][0] == 1.0


@pytest.mark.parametrize(("reals", "percent"), [(100, 1), (20, 5), (700, 1), (60, 5)])
def test_weighted_metrics__an_exact_false_positive_rate_is_within_its_limit(reals, percent):
    wrong = reals * percent // 100
    score = np.concatenate([np.full(wrong, 3.0), np.full(reals - wrong, 1.0), [4.0, 2.0, 0.0]])
    label = np.append(np.zeros(reals, int), [1, 1, 1])
    args = {"val_threshold": 0, "prob": probability(score)}
    ones = np.ones((1, score.size), np.uint8)
    assert weighted_metrics(score, label, ones, **args)[f"tpr_at_fpr_{percent}"][0] == 2 / 3
    ones[0, 0] = 2  # one false positive more
    assert weighted_metrics(score, label, ones, **args)[f"tpr_at_fpr_{percent}"][0] == 1 / 3


def test_weighted_metrics__no_threshold_within_the_limit_is_a_rate_of_0():
    found = weighted_metrics([2.0, 1.0], [0, 1], np.ones((1, 2)), val_threshold=0, prob=[0.9, 0.8])
    assert found["tpr_at_fpr_1"][0] == found["tpr_at_fpr_5"][0] == 0.0


def test_weighted_metrics__of_two_equal_gaps_the_higher_threshold_is_taken():
    score = np.array([3, 3, 2, 2, 2, 2, 1, 1])
    label = np.array([1, 1, 1, 0, 0, 0, 1, 0])  # rates 0 and 1/2 at 3, then 3/4 and 1/4 at 2
    found = weighted_metrics(score, label, np.ones((1, 8)), val_threshold=0, prob=label)
    assert found["eer"][0] == 0.25


def test_weighted_metrics__a_perfect_head_is_exactly_perfect():
    label = np.arange(101) % 2
    found = weighted_metrics(
        label - 0.5, label, np.ones((1, 101), int), val_threshold=0, prob=label
    )
    lower = {name for name, metric in METRICS.items() if metric.lower_is_better}
    assert {n: v[0] for n, v in found.items()} == {n: float(n not in lower) for n in METRICS}


def test_weighted_metrics__a_replicate_of_one_class_lacks_what_needs_two():
    score, label = np.array([1.0, -1.0, 2.0]), np.array([1, 0, 1])
    weights = np.array([[1, 0, 3], [0, 5, 0], [0, 0, 0], [1, 1, 1]])
    found = weighted_metrics(score, label, weights, val_threshold=1.5, prob=[0.7, 0.2, 0.9])
    for name in set(METRICS) - {*ONE_CLASS_ENOUGH, *OF_ONE_CLASS}:
        assert np.isnan(found[name]).tolist() == [True, True, True, False], name
    assert np.isnan(found["fpr_at_val_threshold"]).tolist() == [True, False, True, False]
    assert np.isnan(found["tpr_at_val_threshold"]).tolist() == [False, True, True, False]
    for name in ONE_CLASS_ENOUGH:
        assert np.isnan(found[name]).tolist() == [False, False, True, False], name
    assert found["accuracy_at_val_threshold"][:2].tolist() == [0.75, 1.0]


def test_weighted_metrics__the_edges_of_bins():
    """Within a bin gaps cancel, across an edge they do not."""
    ones = np.ones((1, 2), np.uint8)
    args = {"score": [0.0, 1.0], "label": [0, 1], "weights": ones, "val_threshold": 0}
    assert weighted_metrics(**args, prob=[0.4, 0.46])["calibration_error"][0] == pytest.approx(0.07)
    edge = 7 / 15  # belongs to the upper bin
    expected = (0.46 + 1 - edge) / 2
    found = weighted_metrics(**args, prob=[0.46, edge])["calibration_error"][0]
    assert found == pytest.approx(expected)
    found = weighted_metrics(**args, prob=[0.95, 1.0])["calibration_error"][0]
    assert found == pytest.approx(0.475)  # 1.0 shares the last bin


def test_weighted_metrics__blocks_of_replicates_join():
    _, score, label = next(draws())
    prob, weights = probability(score), some_weights(300, 150)
    whole = weighted_metrics(score, label, weights, val_threshold=0.3, prob=prob)
    block = 16 * 150 * 7  # 7 replicates
    parts = weighted_metrics(
        score, label, weights, val_threshold=0.3, prob=prob, working_bytes=block
    )
    for name in METRICS:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-7)


def test_weighted_metrics__memory_is_bounded():
    rng = np.random.default_rng(0)
    score, label = rng.normal(size=20_000), rng.integers(0, 2, 20_000)
    weights, prob = np.ones((400, 20_000), np.uint8), probability(score)
    tracemalloc.start()
    try:
        weighted_metrics(score, label, weights, val_threshold=0, prob=prob)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20  # one table alone would hold 64 MB
    finally:
        tracemalloc.stop()


def test_weighted_metrics__no_replicates():
    found = weighted_metrics([1.0], [1], np.ones((0, 1)), val_threshold=0, prob=[0.5])
    assert all(value.shape == (0,) for value in found.values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": [1, -1]}, "a label is -1; leave rows of unknown label out first"),
        ({"label": [1, 2]}, "a label is 2;"),
        ({"label": [1]}, "give one score and one label an image"),
        ({"score": [0.0, math.nan]}, "a score is nan;"),
        ({"weights": [[1, -2]]}, "a weight is -2; weights must be finite and 0 or more"),
        ({"weights": [[1, math.nan]]}, "a weight is nan;"),
        ({"weights": [[1, math.inf]]}, "a weight is inf;"),
        ({"weights": [1, 2]}, r"weights of shape \(2,\) for 2 scores; give \(replicates, 2\)"),
        ({"weights": [[1, 2, 3]]}, r"weights of shape \(1, 3\) for 2 scores"),
        ({"weights": [["a", "b"]]}, "weights of type <U1; give numbers"),
        ({"prob": [0.5]}, r"probabilities of shape \(1,\) for 2 scores; give one a score"),
        ({"prob": [0.5, 1.5]}, r"a probability is 1.5; probabilities lie within \[0, 1\]"),
        ({"prob": [0.5, math.nan]}, "a probability is nan;"),
        ({"val_threshold": math.nan}, "the threshold is nan;"),
    ],
)
def test_weighted_metrics__refuses(changed, message):
    args = {"score": [1.0, 0.0], "label": [1, 0], "weights": [[1, 1]]}
    args |= {"val_threshold": 0.0, "prob": [0.5, 0.5]} | changed
    with pytest.raises(ScoreError, match=message):
        weighted_metrics(**args)


def more_draws():
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


@pytest.mark.parametrize(("score", "label"), [pytest.param(s, t, id=n) for n, s, t in more_draws()])
def test_binary_metrics__equal_sklearn_and_numpy(score, label):
    metrics = binary_metrics(score, label)
    assert metrics["auroc"] == pytest.approx(roc_auc_score(label, score), abs=1e-6)
    assert metrics["ap"] == pytest.approx(average_precision_score(label, score), abs=1e-6)
    assert metrics["eer"] == pytest.approx(reference(score, label)["eer"], abs=1e-6)
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


@pytest.mark.parametrize(("score", "label"), [pytest.param(s, t, id=n) for n, s, t in more_draws()])
def test_binary_metrics__equal_torchmetrics(score, label):
    """It takes ranks within [0, 1], as it may put other scores through a sigmoid."""
    values, rank = np.unique(score, return_inverse=True)
    given = torch.from_numpy(rank / max(1, values.size - 1)), torch.from_numpy(label)
    metrics = binary_metrics(score, label)
    assert metrics["auroc"] == pytest.approx(float(binary_auroc(*given)), abs=1e-6)
    assert metrics["ap"] == pytest.approx(float(binary_average_precision(*given)), abs=1e-6)
    assert metrics["eer"] == pytest.approx(float(binary_eer(*given)), abs=1e-6)


def test_binary_metrics__leave_out_what_validation_chooses():
    names = set(binary_metrics([1.0, -1.0], [1, 0])) - {"n_real", "n_fake"}
    assert names == {name for name, metric in METRICS.items() if not metric.on_validation}


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_table__directions_and_chances_are_those_of_the_numbers(metric):
    rng = np.random.default_rng(4)
    label = rng.integers(0, 2, 4000)
    ones, prob = np.ones((1, 4000), np.uint8), {}
    for kind, score in {
        "guess": rng.normal(size=4000),
        "good": rng.normal(size=4000) + 4 * label - 2,
    }.items():
        chance = np.full(4000, 0.8) if kind == "guess" else probability(4 * score)
        prob[kind] = weighted_metrics(score, label, ones, val_threshold=0, prob=chance)
    guess, good = (prob[kind][metric.name][0] for kind in ("guess", "good"))
    assert metric.sign * good > metric.sign * guess
    assert metric.sign == (-1 if metric.lower_is_better else 1)
    if metric.chance is not None:
        assert guess == pytest.approx(metric.chance, abs=0.03)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e3])
def test_roc_points__equal_sklearn(scale):
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 200)
    score = np.round(rng.normal(size=200) + label, 1) * scale
    fpr, tpr = roc_points(score, label)
    expected_fpr, expected_tpr, _ = roc_curve(label, score, drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected_fpr, atol=1e-6)
    np.testing.assert_allclose(tpr, expected_tpr, atol=1e-6)
