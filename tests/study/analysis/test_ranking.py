import numpy as np
import pandas as pd
import pytest

from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.ranking import (
    Configuration,
    choose,
    choose_train_set,
    leaders,
    matrix,
    models,
)
from tests.study.study_tables import cases, results


def test_leaders__without_those_that_failed_for_a_seed() -> None:
    rows = cases(head=["lda", "svm"], seed=[0, 1], split=["val", "test"], scope=["macro"])
    rows = [row for row in rows if not (row["head"] == "svm" and row["seed"] == 0)]
    made = results(rows, lambda row: 0.9 if row["head"] == "svm" else 0.8)
    ranked = leaders(Estimator(made, "ap", "none"), train_set="alpha")
    assert ranked["head"].tolist() == ["lda"]


def both_splits(val: dict[str, float], test: dict[str, float], **base) -> Estimator:
    rows = cases(base, head=list(val), split=["val", "test"])
    values = {"val": val, "test": test}
    metric = base.pop("metric", "ap")
    made = results(rows, lambda row: values[row["split"]][row["head"]], metric=metric)
    return Estimator(made, metric, "none")


def test_choose__by_validation_whatever_the_test_says() -> None:
    estimator = both_splits(
        {"lda": 0.9, "svm": 0.8}, {"lda": 0.5, "svm": 0.99}, scope="macro", train_set="combined"
    )
    (choice,) = choose(estimator, train_set="combined")
    assert choice.configuration == ("frozen", "clip", "none", "lda", "none")
    assert (choice.val, choice.test.value) == (0.9, 0.5)
    assert (choice.train_set, choice.scope) == ("combined", "macro")
    ranked = leaders(estimator, train_set="combined")
    assert ranked["head"].tolist() == ["svm", "lda"]
    by_val = ranked.sort_values("val_rank")
    assert by_val["head"].tolist() == ["lda", "svm"]
    assert by_val["val"].tolist() == [0.9, 0.8]


def test_choose__a_metric_that_is_better_when_lower() -> None:
    estimator = both_splits(
        {"lda": 0.3, "svm": 0.2}, {"lda": 0.0, "svm": 0.4}, scope="macro", metric="eer"
    )
    (choice,) = choose(estimator, train_set="alpha")
    assert choice.configuration[3] == "svm"
    ranked = leaders(estimator, train_set="alpha")
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

    own, elsewhere = choose(Estimator(results(rows, value), "ap", "none"), train_set="alpha")
    assert own.configuration[3] == "lda"
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
    (choice,) = choose(Estimator(made, "ap", "none"), train_set="alpha")
    assert choice.configuration[1:3] == ("clip", "none")
    assert choice.why.partition("; ")[2].startswith("3 others are equally good there")


def test_choose__ties_are_broken_by_finer_metrics() -> None:
    rows = cases({"scope": "macro"}, head=["lda", "svm", "knn"], split=["val", "test"])
    made = results(rows, lambda row: 0.8, metric="accuracy_at_val_threshold")
    finer = {"lda": (0.9, 0.2), "svm": (0.9, 0.1), "knn": (0.8, 0.0)}
    for place, column in enumerate(("auroc", "calibration_error")):
        made.table[column] = [finer[row["head"]][place] for row in rows]
    (choice,) = choose(Estimator(made, "accuracy_at_val_threshold", "none"), train_set="alpha")
    assert choice.configuration[3] == "svm"


def test_choose__under_the_first_condition() -> None:
    rows = [
        *cases({"scope": "macro"}, head=["lda", "svm"], split=["val", "test"]),
        *cases({"scope": "macro", "test_condition": "blur"}, head=["lda"], split=["val", "test"]),
    ]
    made = results(rows, lambda row: {"none": 0.7, "blur": 1.0}[row["test_condition"]])
    (choice,) = choose(Estimator(made, "ap", "none"), train_set="alpha")
    assert (choice.val, choice.test.value) == (0.7, 0.7)


def test_choose__nothing_where_validation_says_nothing() -> None:
    estimator = both_splits(dict.fromkeys(("lda", "svm"), np.nan), {"lda": 0.9, "svm": 1.0})
    assert choose(estimator, train_set="alpha") == []


@pytest.mark.parametrize(("metric", "expected"), [("auroc", "beta"), ("eer", "alpha")])
def test_choose_train_set__what_validation_likes(metric: str, expected: str) -> None:
    rows = cases({"scope": "macro"}, train_set=["alpha", "beta"], split=["val", "test"])
    good = {("alpha", "val"): 0.6, ("beta", "val"): 0.7, ("alpha", "test"): 0.9}
    made = results(rows, lambda r: good.get((r["train_set"], r["split"]), 0.1), metric=metric)
    estimator = Estimator(made, metric, "none")
    assert choose_train_set(estimator, ["alpha", "beta"]) == expected
    assert choose_train_set(estimator, ["alpha", "beta", "combined"]) == "combined"
    made.table[metric] = np.nan  # one class alone has no AUROC
    assert choose_train_set(Estimator(made, metric, "none"), ["alpha", "beta"]) == "alpha"


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

    ranked = leaders(Estimator(results(rows, value), "ap", "none"), train_set="alpha")
    table = models(ranked).set_index("head")
    assert table["value"].to_dict() == pytest.approx({"lda": 0.1, "svm": 0.2})
    assert table["chosen"].to_dict() == {"lda": True, "svm": False}


@pytest.mark.parametrize("test", [{"lda": 0.9, "svm": 0.6}, {"lda": 0.6, "svm": 0.9}])
def test_leaders__ties_of_validation_are_not_broken_by_test_images(test: dict[str, float]) -> None:
    rows = cases({"scope": "macro"}, head=["lda", "svm"], split=["val", "test"])
    made = results(rows, lambda row: test[row["head"]] if row["split"] == "test" else 0.8)
    made.table["auroc"] = [{"lda": 0.9, "svm": 0.8}[row["head"]] for row in rows]
    estimator = Estimator(made, "ap", "none")
    (choice,) = choose(estimator, train_set="alpha")
    assert choice.configuration[3] == "lda"
    ranked = leaders(estimator, train_set="alpha")
    assert ranked.set_index("head")["val_rank"].to_dict() == {"lda": 0, "svm": 1}
    chosen = models(ranked).set_index("head")["chosen"]
    assert chosen.to_dict() == {"lda": True, "svm": False}
    assert ranked.sort_values("val_rank")["head"].tolist() == ["lda", "svm"]


def test_matrix__trained_on_against_tested_on() -> None:
    rows = cases(train_set=["alpha", "beta"], scope=["dataset"], name=["alpha", "beta"])
    rows += cases(train_set=["alpha", "beta"], scope=["macro", "worst", "pooled"])
    made = results(rows, lambda row: 0.9 if row["name"] == row["train_set"] else 0.6)
    estimator = Estimator(made, "ap", "none")
    found = matrix(
        estimator, Configuration("frozen", "clip", "none", "lda", "none"), by_generator=False
    )
    values = found.set_index(["train_set", "test_set"])["value"]
    assert list(dict.fromkeys(found["test_set"])) == ["alpha", "beta", "pooled", "macro", "worst"]
    assert values["alpha", "alpha"] == values["beta", "beta"] == pytest.approx(0.9)
    assert values["alpha", "beta"] == pytest.approx(0.6)
    assert isinstance(found, pd.DataFrame)
