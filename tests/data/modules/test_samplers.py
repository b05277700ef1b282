from pathlib import Path

import pytest
from torch.utils.data import DistributedSampler

from dfl.data.images.crops import CenterCrop
from dfl.data.images.dataset import ImageDataset
from dfl.data.manifest.manifest import Manifest
from dfl.data.modules.samplers import EvalSampler, TrainSampler


def dataset_of(count: int) -> ImageDataset:
    known = {"label": 0, "dataset": "d", "generator": "real", "split": ""}
    rows = [{"path": f"{i}", "group": f"{i}", **known} for i in range(count)]
    return ImageDataset(Manifest.from_rows(rows, Path()), crop=CenterCrop(8))


@pytest.mark.parametrize("kind", [EvalSampler, TrainSampler])
@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 6, 7, 10, 11])
def test_samplers__each_position_once(kind: type[EvalSampler], replicas: int, count: int) -> None:
    dataset = dataset_of(count)
    dealt = [list(kind(dataset, num_replicas=replicas, rank=rank)) for rank in range(replicas)]
    assert {len(part) for part in dealt} == {-(-count // replicas)}
    assert {len(kind(dataset, num_replicas=replicas, rank=rank)) for rank in range(replicas)} == {
        -(-count // replicas)
    }
    everything = [position for part in dealt for position in part]
    assert sorted(p for p in everything if p >= 0) == list(range(count))
    assert all(0 <= ~p < count for p in everything if p < 0)
    assert sum(p < 0 for p in everything) < replicas


def test_eval_sampler__interleaves_in_order() -> None:
    dealt = [list(EvalSampler(dataset_of(5), num_replicas=2, rank=rank)) for rank in range(2)]
    assert dealt == [[0, 2, 4], [1, 3, ~0]]


def test_train_sampler__order_follows_seed_and_epoch_not_the_processes() -> None:
    dataset = dataset_of(12)

    def order(replicas: int, epoch: int, seed: int = 0) -> list[int]:
        parts = []
        for rank in range(replicas):
            sampler = TrainSampler(dataset, num_replicas=replicas, rank=rank, seed=seed)
            sampler.set_epoch(epoch)
            parts.append(list(sampler))
        return [position for turn in zip(*parts, strict=True) for position in turn]

    assert order(1, 0) == order(2, 0) == order(3, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(1, 0, seed=5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_train_sampler__keeps_groups_together(replicas: int) -> None:
    dataset, groups = dataset_of(12), list("abcdefabcdef")
    orders = []
    for epoch in (0, 1):
        parts = []
        for rank in range(replicas):
            sampler = TrainSampler(dataset, num_replicas=replicas, rank=rank, groups=groups)
            sampler.set_epoch(epoch)
            parts.append(list(sampler))
        orders.append([position for turn in zip(*parts, strict=True) for position in turn])
        assert sorted(orders[-1]) == list(range(12))
        pairs = zip(orders[-1][::2], orders[-1][1::2], strict=True)
        assert all(groups[one] == groups[other] for one, other in pairs)
    assert orders[0] != orders[1]


def test_train_sampler__tells_the_dataset_its_epoch() -> None:
    dataset = dataset_of(3)
    TrainSampler(dataset).set_epoch(4)
    assert dataset.epoch == 4


@pytest.mark.parametrize("kind", [EvalSampler, TrainSampler])
def test_samplers__are_left_alone_by_lightning(kind: type[EvalSampler]) -> None:
    assert isinstance(kind(dataset_of(3)), DistributedSampler)
