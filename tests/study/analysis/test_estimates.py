import numpy as np
import pytest

from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.judge import Results
from tests.study.study_tables import B, cases, results


def seed_deviations(seeds: int) -> np.ndarray:
    drawn = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=B) / seeds
    wider = {2: 12.7062, 3: 4.30265}[seeds] / 1.959964 * np.sqrt(seeds / (seeds - 1))
    return wider * (drawn - 1 / seeds)


def test_mean__one_seed_is_the_mean_of_rows_and_of_replicates() -> None:
    made = results(cases(train_set=["a", "b", "c"]), lambda row: "abc".index(row["train_set"]))
    found = Estimator(made, "ap", "none").mean(made.table)
    assert (found.value, found.count) == (1, 3)
    np.testing.assert_allclose(found.replicates, made.replicates.mean(0), rtol=1e-6)
    low, high = np.quantile(found.replicates, [0.025, 0.975])
    assert (found.low, found.high) == (low, min(high, 1))  # no metric is above 1


def test_mean__seeds_are_drawn_and_weigh_alike() -> None:
    rows = [*cases(train_set=["a", "b", "c"]), *cases({"seed": 5})]
    made = results(rows, lambda row: float(row["seed"]))
    found = Estimator(made, "ap", "none").mean(made.table)
    assert found.value == 2.5  # not 5 / 4: a seed with more rows counts no more
    images = (made.replicates[:3].mean(0) + made.replicates[3]) / 2
    expected = images + seed_deviations(2) @ [0, 5]
    np.testing.assert_allclose(found.replicates, expected, rtol=1e-4)
    assert np.ptp(found.replicates) > 4  # what the seed changes is within


def test_mean__over_the_seeds_that_are_there() -> None:
    made = results(cases(seed=[0, 1, 2]), lambda row: float(row["seed"]))
    found = Estimator(made, "ap", "none").mean(made.table[made.table["seed"] != 1])
    assert found.value == 1
    expected = made.replicates[[0, 2]].mean(0) + seed_deviations(2) @ [0, 2]
    np.testing.assert_allclose(found.replicates, expected, rtol=1e-4, atol=1e-4)


def test_mean__intervals_over_a_few_seeds_cover_what_other_seeds_would_give() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    made = results(cases(seed=[0, 1, 2]), lambda row: 0.5, noise=0.0)
    for _ in range(200):
        value = 0.5 + 0.01 * rng.normal(size=3)
        table = made.table.assign(ap=value)
        own = Estimator(Results(table, np.tile(value[:, None], B).astype("f4")), "ap", "none")
        found = own.mean(table)
        covered += found.low <= 0.5 <= found.high
    assert covered / 200 >= 0.9


@pytest.mark.parametrize(("seeds", "widest"), [(2, 5.0), (3, 2.6), (5, 2.2)])
def test_mean__seeds_that_differ_in_their_images_alone_widen_an_interval_little(
    seeds: int, widest: float
) -> None:
    """The images' noise must not be multiplied by the weights that stand for other seeds."""
    rng = np.random.default_rng(2)
    widths, covered = [], []
    made = results(cases(seed=list(range(seeds))), lambda row: 0.5)
    for _ in range(100):
        hits = rng.random((seeds, 200)) < 0.8
        drawn = rng.multinomial(200, np.full(200, 1 / 200), size=B) / 200
        values, replicates = hits.mean(1), (hits @ drawn.T).astype("f4")
        table = made.table.assign(ap=values)
        found = Estimator(Results(table, replicates), "ap", "none").mean(table)
        widths.append(found.high - found.low)
        covered.append(found.low <= 0.8 <= found.high)
    plain = 2 * 1.96 * np.sqrt(0.8 * 0.2 / 200 / seeds)
    assert np.mean(covered) >= 0.94
    assert np.median(widths) < widest * plain


def test_mean__rows_and_replicates_that_are_nan() -> None:
    made = results(cases(train_set=["a", "b", "c"]), lambda row: 0.5)
    table = made.table.assign(ap=[0.5, np.nan, 0.7])
    replicates = made.replicates.copy()
    replicates[0, :10] = np.nan
    replicates[2, :5] = np.nan
    found = Estimator(Results(table, replicates), "ap", "none").mean(table)
    assert (found.value, found.count) == (0.6, 2)
    assert np.isnan(found.replicates[:5]).all()
    np.testing.assert_allclose(found.replicates[5:10], replicates[2, 5:10])
    np.testing.assert_allclose(found.replicates[10:], replicates[[0, 2], 10:].mean(0), rtol=1e-6)


def test_mean__of_nothing() -> None:
    made = results(cases(), lambda row: 0.5)
    found = Estimator(made, "ap", "none").mean(made.table.iloc[:0])
    assert found.count == 0
    assert np.isnan([found.value, found.low, found.high]).all()


def test_mean__replicates_of_two_means_are_paired() -> None:
    made = results(cases(head=["lda", "svm"]), lambda row: 0.6 + 0.05 * (row["head"] == "svm"))
    estimator = Estimator(made, "ap", "none")
    lda, svm = (estimator.mean(made.table.iloc[[place]]) for place in (0, 1))
    assert svm.low < lda.high  # alone they overlap: all images are as uncertain as that
    found = svm.replicates - lda.replicates
    low, high = np.quantile(found, [0.025, 0.975])
    assert 0 < low < 0.05 < high < 0.1
