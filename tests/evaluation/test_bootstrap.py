import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from dfl.errors import ScoreError
from dfl.evaluation import group_weights, percentile_interval, weighted_metrics

NAMES = [f"photo {k}" for k in range(600)]
PINNED = [[0, 0, 1, 1, 0, 1, 1, 2, 0, 0, 0, 1], [0, 3, 1, 0, 1, 1, 1, 1, 1, 2, 0, 0]]


@given(st.lists(st.text(max_size=3), max_size=20), st.integers(), st.data())
def test_group_weights__depend_on_the_group_alone(groups, seed, data):
    """Rows of a group move together, whatever the others are and wherever they stand."""
    weights = group_weights(groups, replicates=20, seed=seed)
    assert weights.shape == (20, len(groups))
    assert weights.dtype == np.uint8
    picked = data.draw(st.lists(st.sampled_from(range(len(groups))))) if groups else []
    some = group_weights([groups[k] for k in picked], replicates=20, seed=seed)
    np.testing.assert_array_equal(some, weights[:, picked])
    for row, group in enumerate(groups):
        np.testing.assert_array_equal(weights[:, row], weights[:, groups.index(group)])


def test_group_weights__groups_differ():
    weights = group_weights(["a", "b"], replicates=200, seed=0)
    assert not np.array_equal(weights[:, 0], weights[:, 1])


@pytest.mark.parametrize("fewer", [0, 1, 2, 7, 49])
def test_group_weights__more_replicates_begin_with_the_fewer(fewer):
    every = group_weights(NAMES[:9], replicates=50, seed=3)
    few = group_weights(NAMES[:9], replicates=fewer, seed=3)
    np.testing.assert_array_equal(few, every[:fewer])


def test_group_weights__stay_the_same_from_version_to_version():
    weights = group_weights(["a", "é"], replicates=12, seed=0)
    assert weights.T.tolist() == PINNED


def test_group_weights__another_seed_draws_others():
    ours, others = (group_weights(NAMES, replicates=9, seed=seed) for seed in (0, 1))
    assert np.mean(ours == others) < 0.4  # independent Poisson(1) counts agree at 0.31


def test_group_weights__are_poisson_counts():
    weights = group_weights(NAMES, replicates=500, seed=1)
    seen = np.bincount(weights.ravel(), minlength=8)[:8] / weights.size
    expected = poisson.pmf(np.arange(8), 1)
    deviation = np.sqrt(expected * (1 - expected) / weights.size)
    assert (np.abs(seen - expected) < 5 * deviation).all()


def test_group_weights__groups_and_replicates_are_independent():
    weights = group_weights(NAMES, replicates=500, seed=1).astype(float)
    between_groups = np.corrcoef(weights[:, :100].T)[~np.eye(100, dtype=bool)]
    between_replicates = np.corrcoef(weights[:100])[~np.eye(100, dtype=bool)]
    assert abs(between_groups.mean()) < 0.002
    assert abs(between_groups).max() < 6 / math.sqrt(500)
    assert abs(between_replicates.mean()) < 0.003
    assert abs(between_replicates).max() < 6 / math.sqrt(600)


def test_group_weights__give_the_spread_of_an_accuracy():
    label = np.arange(400) % 2
    score = np.where(np.arange(400) < 320, label - 0.5, 0.5 - label)  # 80 % right
    weights = group_weights(NAMES[:400], replicates=1000, seed=0)
    found = weighted_metrics(score, label, weights, val_threshold=0, prob=label)["accuracy"]
    low, high = percentile_interval(found)
    assert found.std() == pytest.approx(math.sqrt(0.8 * 0.2 / 400), rel=0.1)
    assert (high - low) == pytest.approx(2 * 1.96 * math.sqrt(0.8 * 0.2 / 400), rel=0.15)


def test_group_weights__take_no_group_no_replicate_and_odd_names():
    assert group_weights([], replicates=5, seed=0).shape == (5, 0)
    assert group_weights(["a"], replicates=0, seed=0).shape == (0, 1)
    assert group_weights(["", "\udcff"], replicates=5, seed=-1).shape == (5, 2)


def test_group_weights__lie_in_memory_as_the_metrics_read_them():
    assert group_weights(NAMES[:9], replicates=50, seed=3).flags.f_contiguous


def test_group_weights__refuse_less_than_no_replicate():
    with pytest.raises(ScoreError, match="-1 bootstrap replicates; take 0 or more"):
        group_weights(["a"], replicates=-1, seed=0)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_percentile_interval__leaves_nan_out(level):
    values = np.random.default_rng(0).normal(size=101)
    expected = np.percentile(values, [50 - 50 * level, 50 + 50 * level])
    with_nan = np.append(values, [math.nan] * 101)  # half of them, not more
    np.testing.assert_allclose(percentile_interval(with_nan, level), expected)
    np.testing.assert_allclose(percentile_interval(values, level), expected)


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.nan, math.nan]])
def test_percentile_interval__is_nan_without_enough_replicates(values):
    assert np.isnan(percentile_interval(values)).all()


@pytest.mark.parametrize("level", [0.0, 1.0, 95, math.nan])
def test_percentile_interval__refuses_a_level(level):
    with pytest.raises(ScoreError, match=f"a confidence level of {level}; take one between 0 and"):
        percentile_interval([1.0], level)


def test_interval__holds_what_percentile_interval_gives():
    assert percentile_interval([2.0, 2.0]) == (2.0, 2.0)
