import numpy as np
import pandas as pd
import pytest
import torch

from dfl.evaluation import TABLE_METRICS
from dfl.heads.tasks import epoch_scores
from dfl.heads.tasks.epoch_scores import ScoreCollector, epoch_metrics
from dfl.types import PADDING
from tests.evaluation.reference import reference


def _batch(index: list[int]) -> dict:
    return {
        "index": torch.tensor(index),
        "path": [f"{i}.png" for i in index],
        "dataset": ["p"] * len(index),
        "generator": ["real"] * len(index),
        "label": torch.zeros(len(index), dtype=torch.int64),
    }


def test_collector__manifest_order_without_padding() -> None:
    collector = ScoreCollector()
    for index in ([4, 0], [7, PADDING], [2, 1], [PADDING]):
        score = torch.tensor(index, dtype=torch.float32) / 3
        collector.add(_batch(index), "val", {"score": score, "loss": 2 * score})
    table = collector.gather()
    assert table["path"].tolist() == ["0.png", "1.png", "2.png", "4.png", "7.png"]
    names = ["path", "dataset", "generator", "split", "label", "score", "loss"]
    assert table.columns.tolist() == names
    assert table.index.tolist() == list(range(5))
    assert set(table["split"]) == {"val"}
    pd.testing.assert_series_equal(table["loss"], 2 * table["score"], check_names=False)
    # as exact as the logits are
    assert table["score"].iloc[1] == float(torch.tensor(1.0) / 3)


def test_collector__begins_anew_and_may_be_empty() -> None:
    collector = ScoreCollector()
    collector.add(_batch([0]), "val", {"score": torch.zeros(1, requires_grad=True)})
    assert len(collector.gather()) == 1
    assert collector.gather().empty
    collector.add(_batch([PADDING]), "val", {"score": torch.zeros(1)})
    assert collector.gather().empty


def test_collector__joins_what_processes_give(monkeypatch) -> None:
    said: list[pd.DataFrame] = []

    def gathered(mine: pd.DataFrame) -> list[pd.DataFrame]:
        said.append(mine)
        return [*said, pd.DataFrame()]  # the last one has seen nothing

    monkeypatch.setattr(epoch_scores, "gathered", gathered)
    other = ScoreCollector()
    other.add(_batch([1, 3]), "test", {"score": torch.tensor([1.0, 3.0])})
    other.gather()
    collector = ScoreCollector()
    collector.add(_batch([0, 2]), "test", {"score": torch.tensor([0.0, 2.0])})
    assert collector.gather()["score"].tolist() == [0, 1, 2, 3]


def _table() -> pd.DataFrame:
    """Pairs p and q share their real images; p has two generators, q one of them."""
    rng = np.random.default_rng(0)
    rows = [(f"r{i}", d, "real", 0) for i in range(12) for d in "pq"]
    rows += [(f"f{i}", "p", ("gan", "ldm")[i % 2], 1) for i in range(10)]
    rows += [(f"g{i}", "q", "ldm", 1) for i in range(7)]
    table = pd.DataFrame(rows, columns=["path", "dataset", "generator", "label"])
    score = pd.Series(rng.normal(size=table["path"].nunique()), index=table["path"].unique())
    table["score"] = table["path"].map(score) + 0.8 * table["label"]
    return table.assign(split="test", loss=table["score"].abs())


def _expected(rows: pd.DataFrame) -> dict[str, float]:
    values = reference(rows["score"].to_numpy(), rows["label"].to_numpy())
    return {name: values[name] for name in TABLE_METRICS}


def test_epoch_metrics__equal_sklearn_on_each_group() -> None:
    table = _table()
    real = table["label"] == 0
    groups = {
        "": table.drop_duplicates("path"),
        "p/": table[table["dataset"] == "p"],
        "q/": table[table["dataset"] == "q"],
        # gan is in p only; ldm is in both, whose real images are the same
        "generator/gan/": table[(table["generator"] == "gan") | (real & (table["dataset"] == "p"))],
        "generator/ldm/": table[(table["generator"] == "ldm") | real].drop_duplicates("path"),
    }
    logged = epoch_metrics(table, "test")
    expected = {
        f"test/{group}{name}": value
        for group, rows in groups.items()
        for name, value in _expected(rows).items()
    }
    assert logged.keys() == {*expected, "test/loss"}
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, abs=1e-6), name


def test_epoch_metrics__validation_has_no_generators() -> None:
    logged = epoch_metrics(_table(), "val")
    assert not [name for name in logged if "generator" in name]
    assert {"val/loss", "val/auroc", "val/p/ap"} <= logged.keys()


def test_epoch_metrics__loss_counts_each_image_once() -> None:
    table = _table()
    once = table.drop_duplicates("path")["loss"].mean()
    assert once != pytest.approx(table["loss"].mean())
    assert epoch_metrics(table, "val")["val/loss"] == pytest.approx(once)


def test_epoch_metrics__one_class_has_an_accuracy_only() -> None:
    logged = epoch_metrics(_table().query("label == 1"), "val")
    names = {"val/loss", "val/accuracy", "val/p/accuracy", "val/q/accuracy"}
    assert logged.keys() == names


def test_epoch_metrics__unknown_labels_count_for_nothing() -> None:
    table = _table()
    unknown = table.iloc[:1].assign(
        path="u", label=-1, generator="unknown", score=50.0, loss=np.nan
    )
    both = pd.concat([table, unknown], ignore_index=True)
    logged = epoch_metrics(both, "test")
    expected = epoch_metrics(table, "test")
    assert {name: logged[name] for name in expected} == pytest.approx(expected)
    assert not [name for name in logged if "generator/unknown" in name]


def test_epoch_metrics__without_scores_or_rows() -> None:
    table = _table().drop(columns="score")
    assert epoch_metrics(table, "val").keys() == {"val/loss"}
    assert epoch_metrics(pd.DataFrame(), "val") == {}
