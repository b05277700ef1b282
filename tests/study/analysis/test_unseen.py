import numpy as np
import pytest

from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.ranking import Configuration
from dfl.study.analysis.unseen import choose_for_unseen, unseen_table
from tests.study.study_tables import cases, results

NEW = {"without food": "food", "without games": "games"}
VALUES = {
    ("lda", "food"): 0.5,
    ("lda", "games"): 0.9,
    ("svm", "food"): 0.65,
    ("svm", "games"): 0.7,
}


def table():
    """LDA is better on average, in validation SVM is; other rows must decide nothing."""
    rows = [
        row
        for train_set, own in NEW.items()
        for row in (
            *cases(
                {"train_set": train_set, "scope": "dataset"},
                head=["lda", "svm"],
                name=["food", "games"],
                seed=[0, 1],
            ),
            *cases(
                {"train_set": train_set, "scope": "unseen", "split": "val"},
                head=["lda", "svm"],
                seed=[0, 1],
            ),
            *cases({"train_set": train_set, "scope": "source", "name": own}, head=["lda", "svm"]),
        )
    ]
    rows += cases({"train_set": "without family sd", "scope": "family", "name": "sd"}, head=["svm"])
    rows += cases({"train_set": "combined", "scope": "unseen", "split": "val"}, head=["lda"])

    def value(row):
        if row["scope"] == "dataset":
            return VALUES[row["head"], row["name"]] + (0.3 * (NEW[row["train_set"]] != row["name"]))
        if row["split"] == "val":
            return 0.99 if row["train_set"] == "combined" else {"lda": 0.6, "svm": 0.8}[row["head"]]
        return 0.97

    made = results(rows, value)
    fpr = [
        {"food": 0.2, "games": 0.6}[row["name"]] if row["scope"] == "source" else 0.9
        for row in rows
    ]
    made.table["fpr_at_val_threshold"] = fpr
    made.table["tpr_at_val_threshold"] = 0.4
    return Estimator(made, "ap", "none")


def test_choose_for_unseen__by_validation_and_judged_on_what_is_new() -> None:
    choice = choose_for_unseen(table(), NEW)
    assert (choice.configuration.head, choice.train_set) == ("svm", None)
    assert choice.val == pytest.approx(0.8)
    assert choice.test.value == pytest.approx(0.675)
    assert choose_for_unseen(table(), {}) is None


def test_unseen_table__worst_set_worst_source_and_new_families() -> None:
    chosen = Configuration("frozen", "clip", "none", "svm", "none")
    found = unseen_table(table(), NEW, chosen).set_index("head")
    assert found.index.tolist() == ["svm", "lda"]  # by validation
    assert found["value"].tolist() == pytest.approx([0.675, 0.7])
    assert found["worst_set"].tolist() == ["food", "food"]
    assert found["worst"].tolist() == pytest.approx([0.65, 0.5])
    assert found["fpr"].tolist() == pytest.approx([0.6, 0.6])
    assert found["fpr_source"].tolist() == ["games", "games"]
    assert found["tpr"].tolist() == pytest.approx([0.4, 0.4])
    assert found["family"]["svm"] == pytest.approx(0.97)
    assert np.isnan(found["family"]["lda"])
    assert found["chosen"].tolist() == [True, False]


def test_mean_over__the_interval_holds_the_spread_between_sets() -> None:
    estimator = table()
    rows = estimator.table
    rows = rows[(rows["head"] == "lda") & (rows["scope"] == "dataset")]
    rows = rows[rows["train_set"].map(NEW) == rows["name"]]
    plain, wide = estimator.mean(rows), estimator.mean_over(rows, "name")
    assert wide.value == pytest.approx(plain.value)
    assert wide.high - wide.low > 2 * (plain.high - plain.low)  # 0.5 and 0.9
    one = rows[rows["name"] == "food"]
    assert estimator.mean_over(one, "name").columns == estimator.mean(one).columns
