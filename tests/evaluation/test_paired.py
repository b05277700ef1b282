import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from dfl.errors import ScoreError
from dfl.evaluation import PairedDifference, mcnemar, paired_difference


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(1, 0), (0, 5), (3, 3), (4, 3), (2, 11), (40, 60), (900, 1000)]
)
def test_mcnemar__equals_the_binomial_test(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True] * 7 + [False] * 5)
    b = np.array([False] * only_a + [True] * only_b + [True] * 7 + [False] * 5)
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, a) == mcnemar(a, b)


def test_mcnemar__groups_favour_one_head_as_a_whole():
    rng = np.random.default_rng(0)
    for _ in range(5):
        groups = rng.integers(0, 8, 40)
        a, b = rng.random((2, 40)) < [[0.8], [0.5]]
        favour = [int(a[groups == g].sum()) - int(b[groups == g].sum()) for g in range(8)]
        sums = [np.dot(signs, favour) for signs in itertools.product([-1, 1], repeat=8)]
        expected = np.mean(np.abs(sums) >= abs(sum(favour)))
        assert mcnemar(a, b, groups=groups.tolist()) == pytest.approx(expected, rel=1e-9)
    # with an image a group it is the test of images
    assert mcnemar(a, b, groups=list(range(40))) == pytest.approx(mcnemar(a, b), rel=1e-9)
    # four groups cannot tell more than 2 / 2 ** 4, however many images they have
    right, wrong = np.ones(400, bool), np.zeros(400, bool)
    assert mcnemar(right, wrong, groups=[i % 4 for i in range(400)]) == pytest.approx(2 / 16)


@pytest.mark.parametrize("correct", [[], [1], [0, 1, 1]])
def test_mcnemar__heads_that_never_disagree(correct):
    assert mcnemar(correct, correct) == 1.0


def test_mcnemar__refuses_other_rows():
    with pytest.raises(ScoreError, match=r"values of shape \(2,\) and \(3,\); give both heads'"):
        mcnemar([1, 0], [1, 0, 1])


def test_paired_difference__pairs_the_replicates():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0.8, 0.1, 999), rng.normal(0.02, 0.005, 999)
    found = paired_difference(0.82, 0.8, shared + own, shared)
    assert found.difference == pytest.approx(0.02)
    low, high = np.percentile(own, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high))
    assert 1 / 1000 <= found.p < 0.01


@pytest.mark.parametrize(
    ("a", "p"),
    [
        ([1.0] * 9, 2 / 10),  # never 0, however clear
        ([-1.0] * 9, 2 / 10),
        ([0.0] * 9, 1.0),
        ([1.0] * 7 + [-1.0] * 2, 4 / 9),
        ([1.0] * 7 + [0.0] * 2, 4 / 9),  # no difference speaks against one
        ([1.0, -1.0], 1.0),
        ([1.0] * 7 + [-1.0] * 2 + [math.nan] * 3, 4 / 9),
    ],
)
def test_paired_difference__p(a, p):
    found = paired_difference(0.5, 0.5, a, np.zeros(len(a)))
    assert found.p == pytest.approx(p)
    swapped = paired_difference(0.5, 0.5, np.zeros(len(a)), a)
    assert swapped.p == found.p
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


def test_paired_difference__level():
    values = np.linspace(-1, 1, 101)
    found = paired_difference(0.0, 0.0, values, np.zeros(101), 0.5)
    assert (found.low, found.high) == pytest.approx((-0.5, 0.5))


@pytest.mark.parametrize("replicates", [[], [math.nan] * 3, [1.0, math.nan, math.nan]])
def test_paired_difference__is_nan_without_enough_replicates(replicates):
    found = paired_difference(0.7, 0.5, replicates, np.zeros(len(replicates)))
    assert found.difference == pytest.approx(0.2)
    assert np.isnan([found.low, found.high, found.p]).all()


def test_paired_difference__refuses_other_replicates():
    with pytest.raises(ScoreError, match=r"values of shape \(1,\) and \(2,\)"):
        paired_difference(0.7, 0.5, [0.1], [0.1, 0.2])


def test_paired_difference__is_frozen():
    with pytest.raises(AttributeError):
        PairedDifference(0.1, 0.0, 0.2, 0.04).p = 0.01
