import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import dfl.features.writer
from dfl.backbones.runner import FeaturesUnderWay
from dfl.data.images.views import FixedBatch
from dfl.data.manifest.manifest import Manifest
from dfl.errors import FeatureError
from dfl.features import ExtractionDataModule, ExtractionPlan, FeatureStore, FeatureWriter
from dfl.features.extraction import Target, Work
from dfl.features.writer import join_shards
from dfl.types import FeatureLayer
from tests.features.small_extraction import hashed

SPEC = (FeatureLayer("a.x", 2, "aa"), FeatureLayer("a.y", 1, "bb"))

DIMS = [(layer.name, layer.dim) for layer in SPEC]


class Late(FeaturesUnderWay):
    """Features that say when somebody waits for them."""

    def __init__(self, rows: range, waited: list[int]) -> None:
        value = torch.tensor(list(rows), dtype=torch.float32)
        super().__init__([{"a.x": torch.stack([value, -value], 1), "a.y": value[:, None] ** 2}])
        self.first, self.waited = rows.start, waited

    def result(self) -> dict[str, torch.Tensor]:
        self.waited.append(self.first)
        return super().result()


@pytest.fixture
def plan(tmp_path: Path, monkeypatch) -> ExtractionPlan:
    monkeypatch.setattr("dfl.features.shards._SHARD_ROWS", 4)
    return ExtractionPlan(tmp_path / "f", hashed(7), "ab" * 32, 2, SPEC).start()


def _run(
    plan: ExtractionPlan, shards: list[int], task: object = None, precision: str = "32-true"
) -> list[int]:
    """Write shards; give the first image of each batch in the order in which it was waited for."""
    execution = {"precision": precision}
    data = ExtractionDataModule({}, [Target(plan.out, "v", SPEC, {})], execution=execution)
    data.plans, data.images = {0: plan}, _manifest(list(range(7)))
    waited: list[int] = []
    writer = FeatureWriter(data)
    writer.on_predict_start(None, task)
    for shard in shards:
        batches = list(plan.batches(shard))
        for rows in batches:
            data.work.append(Work(FixedBatch(rows, ("v",)), (0,), shard, rows is batches[-1]))
            results = {0: [Late(rows, waited)]}
            batch = {"named_hash": torch.from_numpy(plan.hashed.each[rows.start : rows.stop])}
            writer.on_predict_batch_end(None, task, results, batch, len(data.work) - 1)
    waited.append(-1)
    writer.on_predict_epoch_end(None, task)
    writer.teardown(SimpleNamespace(world_size=1), task, "predict")
    return waited


def _manifest(numbers: list[int]) -> Manifest:
    paths = [f"{number}.png" for number in numbers]
    frame = pd.DataFrame(
        {"path": paths, "label": 0, "dataset": [str(i) for i in range(len(paths))]}
    )
    frame = frame.assign(generator="real", split="", group=paths)
    return Manifest(frame, Path("images"))


def test_writer__a_file_for_each_complete_shard(plan: ExtractionPlan) -> None:
    _run(plan, [1])  # the last shard is shorter
    assert plan.pending() == [0]
    features = plan.read(1)
    assert features is not None
    np.testing.assert_array_equal(features["a.x"], [[4, -4], [5, -5], [6, -6]])
    _run(plan, [0])
    assert plan.pending() == []


def test_writer__waits_only_behind_others_under_way(plan: ExtractionPlan, monkeypatch) -> None:
    assert _run(plan, [0, 1]) == [-1, 0, 2, 4, 6]
    monkeypatch.setattr(dfl.features.writer, "_UNDER_WAY", 4)
    assert _run(plan, [0, 1]) == [0, 2, -1, 4, 6]


@pytest.mark.parametrize(
    ("weight", "precision", "cause"),
    [
        (1.0, "16-mixed", "numbers overflow in precision 16-mixed; take 32-true$"),
        (
            1e30,
            "32-true",
            r"float32 overflows with them: they reach 1e\+30, in weight; get the weig",
        ),
        (
            np.nan,
            "16-mixed",
            "some of its weights are not finite, in weight; get the weights again$",
        ),
    ],
)
def test_writer__says_why_values_are_not_finite(
    plan: ExtractionPlan, monkeypatch, weight: float, precision: str, cause: str
) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, weight)
    task = SimpleNamespace(backbone=SimpleNamespace(backbones={"a": network}))
    values = iter([0.0, np.inf])
    monkeypatch.setattr(
        Late, "result", lambda _: dict.fromkeys(("a.x", "a.y"), torch.full((2, 1), next(values)))
    )
    with pytest.raises(FeatureError, match=rf"^a\.x: .* first for \S*images/2\.png: .*{cause}"):
        _run(plan, [0], task, precision)
    assert plan.missing() == [0, 1]


def test_writer__full_disk_is_one_line_and_keeps_what_is_there(
    plan: ExtractionPlan, monkeypatch
) -> None:
    _run(plan, [1])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FeatureError, match=r"disk is full .* 1 of 2 shards are kept") as caught:
        _run(plan, [0])
    assert "\n" not in str(caught.value)
    assert plan.pending() == [0]
    assert len(list(plan.folder.iterdir())) == 1


def _join(plan: ExtractionPlan, numbers: list[int]) -> None:
    join_shards(plan, _manifest(numbers), np.array(numbers), metadata={"precision": "32-true"})


def test_join__rows_of_an_image_in_any_order(plan: ExtractionPlan) -> None:
    _run(plan, [1, 0])
    numbers = [0, 1, 2, 1, 3, 0, 4, 5, 6, 2, 6]
    _join(plan, numbers)
    store = FeatureStore.open(plan.out)
    column = np.array(numbers, dtype=np.float32)
    np.testing.assert_array_equal(store.matrix(), np.stack([column, -column, column**2], axis=1))
    assert store.metadata["precision"] == "32-true"
    assert not plan.folder.exists()


def test_join__a_shard_that_became_damaged_is_named(plan: ExtractionPlan) -> None:
    _run(plan, [0, 1])
    plan.file(1).write_bytes(plan.file(1).read_bytes()[:-1])
    with pytest.raises(FeatureError, match=r"shard-2-0000001.*damaged; run the same command again"):
        _join(plan, list(range(7)))
    assert not plan.out.exists()
    _run(plan, plan.pending())
    _join(plan, list(range(7)))
    assert FeatureStore.open(plan.out).damaged() == []


def test_teardown__waits_for_the_shards_of_other_processes(
    plan: ExtractionPlan, monkeypatch
) -> None:
    data = ExtractionDataModule({}, [Target(plan.out, "v", SPEC, {})], execution={})
    data.plans = {0: plan}
    sleeps = iter([[0], [], [1]])
    monkeypatch.setattr("time.sleep", lambda _: _run(plan, next(sleeps)))
    FeatureWriter(data).teardown(SimpleNamespace(world_size=2), None, "predict")
    assert plan.missing() == []


def test_writer__goes_on_while_a_few_shards_are_written(plan: ExtractionPlan, monkeypatch) -> None:
    monkeypatch.setattr(dfl.features.writer, "_UNDER_WAY", 0)
    monkeypatch.setattr(dfl.features.writer, "_WRITES", 1)
    is_fast, result, write = threading.Event(), Late.result, ExtractionPlan.write
    seen: list[str] = []

    def noted(late: Late) -> dict[str, torch.Tensor]:
        seen.append(f"features of {late.first}")
        return result(late)

    def write_slowly(plan: ExtractionPlan, shard: int, features: dict[str, np.ndarray]) -> None:
        seen.append(f"write {shard}")
        assert is_fast.wait(20)
        write(plan, shard, features)

    monkeypatch.setattr(Late, "result", noted)
    monkeypatch.setattr(ExtractionPlan, "write", write_slowly)
    loop = threading.Thread(target=_run, args=(plan, [0, 1]))
    loop.start()
    loop.join(0.5)
    assert loop.is_alive()
    assert sorted(seen) == [*(f"features of {first}" for first in (0, 2, 4, 6)), "write 0"]
    is_fast.set()
    loop.join(20)
    assert plan.missing() == []


def test_teardown__does_not_wait_for_ever(plan: ExtractionPlan, monkeypatch) -> None:
    clock = iter(range(0, 10**6, 400))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("time.sleep", lambda _: None)
    data = ExtractionDataModule({}, [Target(plan.out, "v", SPEC, {})], execution={})
    data.plans = {0: plan}
    FeatureWriter(data)._wait_for_others()
    assert next(clock) < 4000
