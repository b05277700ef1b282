import numpy as np
import pandas as pd
import pytest

from dfl.study.analysis.effects import effects
from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.judge import Results
from dfl.study.analysis.ranking import choose, home_of, leaders, matrix, models
from dfl.study.analysis.verdicts import check_claims
from dfl.study.design.claims import Claim
from tests.study.study_tables import cases, results

BEST = {"lda": 0.80, "svm": 0.75, "bayes": 0.60}


def by_head(row) -> float:
    value = BEST[row["head"]] + 0.02 * (row["features"] == "dino")
    return value - 0.2 * (row["scope"] == "unseen")


@pytest.fixture
def crossed() -> Estimator:
    rows = cases(
        head=list(BEST),
        features=["clip", "dino"],
        train_set=["alpha", "beta"],
        scope=["seen", "unseen", "macro"],
    )
    return Estimator(results(rows, by_head), "ap")


def test_effects__level_by_level(crossed: Estimator) -> None:
    table = effects(crossed).set_index(["axis", "level"])
    for scope, less in (("on the datasets trained on", 0), ("on datasets not trained on", 0.2)):
        for name, value in BEST.items():
            row = table.loc[(f"head, {scope}", name)]
            assert row["value"] == pytest.approx(value + 0.01 - less)
            assert row["low"] < row["value"] < row["high"]
            assert row["n_cells"] == 4
            if name == "lda":
                assert np.isnan(row[["difference", "diff_low", "diff_high"]].astype(float)).all()
            else:
                assert row["difference"] == pytest.approx(value - 0.8)
                assert row["diff_low"] < row["difference"] < row["diff_high"] < 0
        difference = (
            table.loc[(f"features, {scope}", "dino")] - table.loc[(f"features, {scope}", "clip")]
        )
        assert difference["value"] == pytest.approx(0.02)
    axes = {axis.split(",")[0] for axis, _ in table.index}
    assert axes == {"head", "features", "train set"}  # one reduction, one condition: no effect
    # training sets have seen different datasets: only on all of them are they compared
    assert {a for a, _ in table.index if a.startswith("train")} == {"train set, on all datasets"}


def test_effects__a_level_keeps_no_better_company(crossed: Estimator) -> None:
    # svm was not tried on the harder features: compared is what all three have
    rows = cases(head=list(BEST), features=["easy", "hard"])
    rows = [row for row in rows if (row["head"], row["features"]) != ("bayes", "hard")]
    made = results(rows, lambda row: BEST[row["head"]] - 0.4 * (row["features"] == "hard"))
    table = effects(Estimator(made, "ap")).set_index(["axis", "level"])
    found = table.loc["head, on the datasets trained on"]
    assert found["value"].to_dict() == pytest.approx(BEST)
    assert set(found["n_cells"]) == {1}


def test_effects__conditions_are_named_after_training_and_testing() -> None:
    rows = [
        *cases(),
        *cases({"train_condition": "blur", "test_condition": "blur"}),
        *cases({"test_condition": "blur"}),
    ]
    made = results(rows, lambda row: 0.9 if row["train_condition"] == "none" else 0.7)
    levels = effects(Estimator(made, "ap")).set_index("level")["value"]
    assert levels.to_dict() == pytest.approx({"none": 0.9, "blur": 0.7, "none → blur": 0.9})


def test_effects__of_the_first_grid_alone() -> None:
    rows = [*cases(head=["lda", "svm"]), *cases({"grid": "more", "head": "bayes"})]
    table = effects(Estimator(results(rows, by_head), "ap"))
    assert set(table["level"]) == {"lda", "svm"}


def verdict(estimator: Estimator, **claim) -> dict[str, object]:
    (row,) = check_claims(estimator, [Claim("it is so", **claim)]).to_dict("records")
    return row


def test_claims__held(crossed: Estimator) -> None:
    row = verdict(crossed, axis="head", better=["lda"])
    assert (row["statement"], row["verdict"]) == ("it is so", "held")
    assert row["difference"] == pytest.approx(0.05)  # against the best of the others
    assert 0 < row["low"] < 0.05 < row["high"]
    assert row["evidence"] == (
        "lda against svm decides; means over 4 cells each: lda 0.810, svm 0.760, bayes 0.610"
    )
    both = verdict(crossed, axis="head", better=["svm", "lda"], scope="unseen")
    assert both["verdict"] == "held"
    assert both["difference"] == pytest.approx(0.15)  # the worst of them


def test_claims__did_not_hold(crossed: Estimator) -> None:
    row = verdict(crossed, axis="head", better=["svm", "bayes"])
    assert row["verdict"] == "did not hold"
    assert row["difference"] == pytest.approx(-0.2)
    assert str(row["evidence"]).startswith("bayes against lda decides")
    assert verdict(crossed, axis="features", better=["clip"])["verdict"] == "did not hold"
    only = verdict(crossed, axis="head", better=["svm"], others=["bayes"])
    assert only["verdict"] == "held"
    assert "lda" not in str(only["evidence"])


def test_claims__undecided() -> None:
    rows = cases(head=["lda", "svm"])
    made = results(rows, lambda row: 0.8 + 0.01 * (row["head"] == "lda"), noise=0.05)
    row = verdict(Estimator(made, "ap"), axis="head", better=["lda"])
    assert row["verdict"] == "undecided"
    assert row["low"] < 0 < row["high"]


def about_equal(names: list[str], *, scale: float, seed: int) -> Estimator:
    """Make results of heads that differ by little, as test images measure them."""
    rng = np.random.default_rng(seed)
    truth = dict(zip(names, 0.8 + rng.normal(scale=scale, size=len(names)), strict=True))
    rows = cases(head=names)
    made = results(rows, lambda row: truth[row["head"]], noise=0.02, seed=seed)
    return Estimator(made, "ap")


def test_claims__undecided_shows_an_interval_that_holds_0() -> None:
    """One pair contradicts at 95 %, though not at the level that many pairs call for."""
    names = [f"head{i}" for i in range(5)]
    shown = []
    for seed in range(60):
        estimator = about_equal(names, scale=0.01, seed=seed)
        row = verdict(estimator, axis="head", better=names[:2])
        if row["verdict"] == "undecided":
            shown.append((row["low"], row["high"]))
    assert len(shown) > 30
    assert all(low <= 0 <= high for low, high in shown)


def test_claims__are_not_refuted_by_a_tail_without_replicates() -> None:
    made = results(cases(head=list(BEST)), lambda row: BEST[row["head"]])
    few = Results(made.table, made.replicates[:, :30])
    against = {"axis": "head", "better": ["bayes"]}
    assert verdict(Estimator(made, "ap"), **against)["verdict"] == "did not hold"
    row = verdict(Estimator(few, "ap"), **against)
    assert row["verdict"] == "undecided"
    assert str(row["evidence"]).endswith("; too few replicates for 2 pairs")


def test_leaders__without_those_that_failed_for_a_seed() -> None:
    rows = cases(head=["lda", "svm"], seed=[0, 1], split=["val", "test"], scope=["macro"])
    rows = [row for row in rows if not (row["head"] == "svm" and row["seed"] == 0)]
    made = results(rows, lambda row: 0.9 if row["head"] == "svm" else 0.8)
    ranked = leaders(Estimator(made, "ap"), home="alpha", first_condition="none")
    assert ranked["head"].tolist() == ["lda"]


def test_claims__equally_good_levels_are_seldom_said_not_to_hold() -> None:
    names = [f"head{i}" for i in range(9)]
    verdicts = []
    for seed in range(40):
        estimator = about_equal(names, scale=0.02, seed=seed)
        verdicts.append(verdict(estimator, axis="head", better=names[:3]))
    wrong = sum(row["verdict"] == "did not hold" for row in verdicts)
    assert wrong <= 6  # about 5 % would be right; every pair at 5 % would make it 50 %


def test_claims__of_a_metric_that_is_better_when_lower() -> None:
    made = results(cases(head=list(BEST)), lambda row: 1 - BEST[row["head"]], metric="eer")
    estimator = Estimator(made, "eer")
    row = verdict(estimator, axis="head", better=["lda"])
    assert row["verdict"] == "held"
    assert row["difference"] == pytest.approx(0.05)
    assert 0 < row["low"] < row["high"]
    assert str(row["evidence"]).endswith("lda 0.200, svm 0.250, bayes 0.400")
    pair = verdict(estimator, axis="head", better=["lda", "svm"])
    assert (pair["verdict"], pair["difference"]) == ("held", pytest.approx(0.15))
    assert verdict(estimator, axis="head", better=["bayes"])["verdict"] == "did not hold"


@pytest.mark.parametrize(
    ("claim", "evidence"),
    [
        (
            {"axis": "head", "better": ["knn"]},
            "no head knn in the first grid, on which claims rest",
        ),
        (
            {"axis": "head", "better": ["lda"], "others": ["x", "y"]},
            "no head x, y in the first grid, on which claims rest",
        ),
        ({"axis": "reduction", "better": ["none"]}, "nothing to compare with"),
        ({"axis": "head", "better": list(BEST)}, "nothing to compare with"),
    ],
)
def test_claims__not_tested(crossed: Estimator, claim, evidence: str) -> None:
    row = verdict(crossed, **claim)
    assert (row["verdict"], row["evidence"]) == ("not tested", evidence)
    assert np.isnan([row["difference"], row["low"], row["high"]]).all()


def test_claims__none() -> None:
    made = results(cases(), lambda row: 0.5)
    assert check_claims(Estimator(made, "ap"), []).empty


def both_splits(val: dict[str, float], test: dict[str, float], **base) -> Estimator:
    rows = cases(base, head=list(val), split=["val", "test"])
    values = {"val": val, "test": test}
    metric = base.pop("metric", "ap")
    made = results(rows, lambda row: values[row["split"]][row["head"]], metric=metric)
    return Estimator(made, metric)


def test_choose__by_validation_whatever_the_test_says() -> None:
    estimator = both_splits(
        {"lda": 0.9, "svm": 0.8}, {"lda": 0.5, "svm": 0.99}, scope="macro", train_set="combined"
    )
    (choice,) = choose(estimator, home="combined", first_condition="none")
    assert choice.configuration == ("frozen", "clip", "none", "lda", "none")
    assert (choice.val, choice.test.value) == (0.9, 0.5)
    assert (choice.train_set, choice.scope) == ("combined", "macro")
    ranked = leaders(estimator, home="combined", first_condition="none")
    assert ranked["head"].tolist() == ["svm", "lda"]
    by_val = ranked.sort_values("val_rank")
    assert by_val["head"].tolist() == ["lda", "svm"]
    assert by_val["val"].tolist() == [0.9, 0.8]


def test_choose__a_metric_that_is_better_when_lower() -> None:
    estimator = both_splits(
        {"lda": 0.3, "svm": 0.2}, {"lda": 0.0, "svm": 0.4}, scope="macro", metric="eer"
    )
    (choice,) = choose(estimator, home="alpha", first_condition="none")
    assert choice.configuration[3] == "svm"
    ranked = leaders(estimator, home="alpha", first_condition="none")
    assert ranked["head"].tolist() == ["lda", "svm"]


def test_choose__the_best_elsewhere_over_all_training_sets() -> None:
    rows = cases(
        head=["lda", "svm"],
        train_set=["alpha", "beta"],
        split=["val", "test"],
        scope=["macro", "unseen"],
    )

    def value(row) -> float:
        good = ("lda", "macro"), ("svm", "unseen")
        return 0.9 if (row["head"], row["scope"]) in good else 0.7

    home, elsewhere = choose(
        Estimator(results(rows, value), "ap"), home="alpha", first_condition="none"
    )
    assert home.configuration[3] == "lda"
    assert elsewhere.configuration[3] == "svm"
    assert (elsewhere.train_set, elsewhere.test.count) == (None, 2)


def test_choose__equally_good_the_simplest() -> None:
    rows = cases(
        {"scope": "macro"},
        features=["clip+dino", "clip"],
        reduction=["pca", "none"],
        split=["val", "test"],
    )
    made = results(rows, lambda row: 0.8)
    (choice,) = choose(Estimator(made, "ap"), home="alpha", first_condition="none")
    assert choice.configuration[1:3] == ("clip", "none")
    assert choice.why.partition("; ")[2].startswith("3 others are equally good there")


def test_choose__ties_are_broken_by_finer_metrics() -> None:
    rows = cases({"scope": "macro"}, head=["lda", "svm", "knn"], split=["val", "test"])
    made = results(rows, lambda row: 0.8, metric="accuracy_at_val_threshold")
    finer = {"lda": (0.9, 0.2), "svm": (0.9, 0.1), "knn": (0.8, 0.0)}
    for place, column in enumerate(("auroc", "calibration_error")):
        made.table[column] = [finer[row["head"]][place] for row in rows]
    (choice,) = choose(
        Estimator(made, "accuracy_at_val_threshold"), home="alpha", first_condition="none"
    )
    assert choice.configuration[3] == "svm"


def test_choose__under_images_as_they_come() -> None:
    rows = [
        *cases({"scope": "macro"}, head=["lda", "svm"], split=["val", "test"]),
        *cases({"scope": "macro", "test_condition": "blur"}, head=["lda"], split=["val", "test"]),
    ]
    made = results(rows, lambda row: {"none": 0.7, "blur": 1.0}[row["test_condition"]])
    (choice,) = choose(Estimator(made, "ap"), home="alpha", first_condition="none")
    assert (choice.val, choice.test.value) == (0.7, 0.7)


def test_choose__nothing_where_validation_says_nothing() -> None:
    estimator = both_splits(dict.fromkeys(("lda", "svm"), np.nan), {"lda": 0.9, "svm": 1.0})
    assert choose(estimator, home="alpha", first_condition="none") == []


@pytest.mark.parametrize(("metric", "expected"), [("auroc", "beta"), ("eer", "alpha")])
def test_home_of__what_validation_likes(metric: str, expected: str) -> None:
    rows = cases({"scope": "macro"}, train_set=["alpha", "beta"], split=["val", "test"])
    good = {("alpha", "val"): 0.6, ("beta", "val"): 0.7, ("alpha", "test"): 0.9}
    made = results(rows, lambda r: good.get((r["train_set"], r["split"]), 0.1), metric=metric)
    estimator = Estimator(made, metric)
    assert home_of(estimator, ["alpha", "beta"]) == expected
    assert home_of(estimator, ["alpha", "beta", "combined"]) == "combined"
    made.table[metric] = np.nan  # one class alone has no AUROC
    assert home_of(Estimator(made, metric), ["alpha", "beta"]) == "alpha"


def test_models__validation_chooses_reduction_and_head() -> None:
    val = {("lda", "none"): 0.7, ("lda", "pca"): 0.9, ("svm", "none"): 0.8, ("svm", "pca"): 0.6}
    rows = cases(
        {"scope": "macro"},
        head=["lda", "svm"],
        reduction=["none", "pca"],
        split=["val", "test"],
    )

    def value(row) -> float:
        own = val[row["head"], row["reduction"]]
        return own if row["split"] == "val" else 1 - own

    ranked = leaders(Estimator(results(rows, value), "ap"), home="alpha", first_condition="none")
    table = models(ranked).set_index("head")
    assert table["value"].to_dict() == pytest.approx({"lda": 0.1, "svm": 0.2})
    assert table["chosen"].to_dict() == {"lda": True, "svm": False}


@pytest.mark.parametrize("test", [{"lda": 0.9, "svm": 0.6}, {"lda": 0.6, "svm": 0.9}])
def test_leaders__ties_of_validation_are_not_broken_by_test_images(test: dict[str, float]) -> None:
    rows = cases({"scope": "macro"}, head=["lda", "svm"], split=["val", "test"])
    made = results(rows, lambda row: test[row["head"]] if row["split"] == "test" else 0.8)
    made.table["auroc"] = [{"lda": 0.9, "svm": 0.8}[row["head"]] for row in rows]
    estimator = Estimator(made, "ap")
    (choice,) = choose(estimator, home="alpha", first_condition="none")
    assert choice.configuration[3] == "lda"
    ranked = leaders(estimator, home="alpha", first_condition="none")
    assert ranked.set_index("head")["val_rank"].to_dict() == {"lda": 0, "svm": 1}
    chosen = models(ranked).set_index("head")["chosen"]
    assert chosen.to_dict() == {"lda": True, "svm": False}
    assert ranked.sort_values("val_rank")["head"].tolist() == ["lda", "svm"]


def test_matrix__trained_on_against_tested_on() -> None:
    rows = cases(train_set=["alpha", "beta"], scope=["dataset"], name=["alpha", "beta"])
    rows += cases(train_set=["alpha", "beta"], scope=["macro", "worst", "pooled"])
    made = results(rows, lambda row: 0.9 if row["name"] == row["train_set"] else 0.6)
    estimator = Estimator(made, "ap")
    found = matrix(
        estimator, ("frozen", "clip", "none", "lda", "none"), first_condition="none", several=False
    )
    values = found.set_index(["train_set", "test_set"])["value"]
    assert list(dict.fromkeys(found["test_set"])) == ["alpha", "beta", "pooled", "macro", "worst"]
    assert values["alpha", "alpha"] == values["beta", "beta"] == pytest.approx(0.9)
    assert values["alpha", "beta"] == pytest.approx(0.6)
    assert isinstance(found, pd.DataFrame)
