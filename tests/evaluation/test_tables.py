import logging
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from dfl.evaluation import (
    METRIC_TABLE_COLUMNS,
    TABLE_METRICS,
    binary_metrics,
    metric_table,
    most_wrong,
)


def rows(dataset, generator, paths, scores):
    label = {"real": 0, "unknown": -1}.get(generator, 1)
    return [
        (path, dataset, generator, "test", label, s) for path, s in zip(paths, scores, strict=True)
    ]


def frame(*parts):
    columns = ["path", "dataset", "generator", "split", "label", "score"]
    return pd.DataFrame([row for part in parts for row in part], columns=columns)


@pytest.fixture
def two_pairs():
    """Two pairs that share two of their reals; the second holds two generators."""
    return frame(
        rows("first", "real", ["r1", "r2"], [-1.0, 0.5]),
        rows("first", "gan", ["g1", "g2"], [2.0, 3.0]),
        rows("second", "real", ["r1", "r2", "r3"], [-1.0, 0.5, -4.0]),
        rows("second", "gan", ["g3"], [-2.0]),
        rows("second", "ldm", ["l1", "l2"], [0.2, 4.0]),
        rows("second", "unknown", ["u1"], [9.0]),
    )


def pick(table, scope, name=None):
    row = table[(table["scope"] == scope) & ((table["name"] == name) | (name is None))]
    assert len(row) == 1
    return row.iloc[0]


def test_metric_table__scopes_and_columns(two_pairs):
    table = metric_table(two_pairs)
    assert tuple(table.columns) == METRIC_TABLE_COLUMNS
    scopes = ["dataset"] * 2 + ["generator"] * 2 + ["pooled", "macro", "worst"]
    assert table["scope"].tolist() == scopes
    assert table["name"].tolist()[:4] == ["first", "second", "gan", "ldm"]
    assert str(table["n_real"].dtype) == "int64"


def test_metric_table__dataset_equals_sklearn(two_pairs):
    row = pick(metric_table(two_pairs), "dataset", "second")
    part = two_pairs[(two_pairs["dataset"] == "second") & (two_pairs["label"] >= 0)]
    assert (row["n_real"], row["n_fake"]) == (3, 3)
    assert row["accuracy"] == accuracy_score(part["label"], part["score"] > 0)
    assert row["auroc"] == pytest.approx(roc_auc_score(part["label"], part["score"]), abs=1e-6)


def test_metric_table__generator_meets_the_reals_of_its_pairs_once(two_pairs):
    table = metric_table(two_pairs)
    gan, ldm = pick(table, "generator", "gan"), pick(table, "generator", "ldm")
    assert (gan["n_real"], gan["n_fake"]) == (3, 3)  # r1 and r2 stand in both pairs
    assert (ldm["n_real"], ldm["n_fake"]) == (3, 2)
    assert gan["accuracy"] == pytest.approx(4 / 6)
    assert ldm["auroc"] == pytest.approx(5 / 6, abs=1e-6)


def test_metric_table__pooled_counts_a_shared_image_once(two_pairs):
    row = pick(metric_table(two_pairs), "pooled")
    assert (row["n_real"], row["n_fake"]) == (3, 5)
    assert row["accuracy"] == pytest.approx(6 / 8)


def test_metric_table__macro_and_worst(two_pairs):
    table = metric_table(two_pairs)
    pairs = table[table["scope"] == "dataset"]
    macro, worst = pick(table, "macro"), pick(table, "worst")
    for name in TABLE_METRICS:
        assert macro[name] == pytest.approx(pairs[name].mean())
        assert worst[name] == (pairs[name].max() if name == "eer" else pairs[name].min())


def test_metric_table__states_how_many_rows_are_unknown(two_pairs, caplog):
    with caplog.at_level(logging.INFO):
        table = metric_table(two_pairs)
    assert table.attrs["n_unknown"] == 1
    assert "1 of 11 scores have no label" in caplog.text


def test_metric_table__one_class_pair_is_nan_and_passed_over(two_pairs):
    only = frame(rows("third", "real", ["x1", "x2"], [1.0, -1.0]))
    table = metric_table(pd.concat([two_pairs, only]))
    third = pick(table, "dataset", "third")
    assert third["accuracy"] == 0.5
    assert math.isnan(third["auroc"])
    assert pick(table, "macro")["auroc"] == pick(metric_table(two_pairs), "macro")["auroc"]
    assert pick(table, "worst")["accuracy"] == 0.5


def test_metric_table__nothing_known(two_pairs):
    table = metric_table(two_pairs[two_pairs["label"] < 0])
    assert table["scope"].tolist() == ["pooled", "macro", "worst"]
    assert table[[*TABLE_METRICS]].isna().all(axis=None)
    assert table["n_real"].tolist() == [0, 0, 0]


def test_metric_table__threshold(two_pairs):
    row = pick(metric_table(two_pairs, threshold=0.5), "dataset", "first")
    assert row["accuracy"] == 1.0


def test_metric_table__leaves_its_input_alone(two_pairs):
    before = two_pairs.copy()
    metric_table(two_pairs)
    pd.testing.assert_frame_equal(two_pairs, before)


def test_metric_table__large_is_quick_and_equal():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 20_000)
    score = rng.normal(size=20_000) + label
    table = metric_table(
        pd.DataFrame(
            {
                "path": [f"{i}.png" for i in range(20_000)],
                "dataset": "p",
                "generator": np.where(label == 1, "gan", "real"),
                "split": "test",
                "label": label,
                "score": score,
            }
        )
    )
    expected = binary_metrics(score, label)
    for scope in ("dataset", "generator", "pooled", "macro", "worst"):
        assert pick(table, scope)["eer"] == pytest.approx(expected["eer"])


def test_most_wrong__wrong_ones_first_then_near_misses(two_pairs):
    picked = most_wrong(two_pairs, 4)
    assert picked["path"].tolist() == ["g3", "r2", "l1", "r1"]
    assert picked["margin"].tolist() == [-2.0, -0.5, 0.2, 1.0]
    assert len(most_wrong(two_pairs, 100)) == 8
