import pandas as pd
import torch

from dfl.heads.tasks.score_collector import ScoreCollector
from dfl.types import PADDING


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
    dist = "dfl.heads.tasks.score_collector.dist"
    other = ScoreCollector()
    other.add(_batch([1, 3]), "test", {"score": torch.tensor([1.0, 3.0])})
    theirs = other._batches[0]

    def all_gather(layers: list, mine: pd.DataFrame) -> None:
        layers[:] = [mine, theirs, pd.DataFrame()]  # the third has seen nothing

    monkeypatch.setattr(f"{dist}.is_initialized", lambda: True)
    monkeypatch.setattr(f"{dist}.get_world_size", lambda: 3)
    monkeypatch.setattr(f"{dist}.all_gather_object", all_gather)
    collector = ScoreCollector()
    collector.add(_batch([0, 2]), "test", {"score": torch.tensor([0.0, 2.0])})
    assert collector.gather()["score"].tolist() == [0, 1, 2, 3]
