from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dfl.errors import ConfigError, DataError, FeatureError
from dfl.features import FeatureDataModule, FeatureStore
from dfl.types import PADDING, FeatureSource
from tests.heads.small_tasks import SPEC, feature_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """60 rows: 20 real images in two pairs each, and 20 fake ones; a fifth is the test split."""
    return feature_folder(tmp_path_factory.mktemp("data") / "features")


def _data(folder: Path, *, rank: int = 0, world: int = 1, **arguments) -> FeatureDataModule:
    data = FeatureDataModule(folder, **{"batch_size": 7} | arguments)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
    data.setup("fit")
    return data


def _loaders(folder: Path, name: str, world: int) -> list[list[dict]]:
    replicas = [_data(folder, rank=rank, world=world) for rank in range(world)]
    return [list(getattr(data, f"{name}_dataloader")()) for data in replicas]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize(("name", "split"), [("val", "val"), ("test", "test"), ("predict", None)])
def test_evaluation__each_row_once_and_padding_marked(folder, name, split, world: int) -> None:
    frame = FeatureStore.open(folder).manifest.frame
    rows = frame.index if split is None else frame.index[frame["split"] == split]
    dealt = _loaders(folder, name, world)
    seen = [index for layer in dealt for batch in layer for index in batch["index"].tolist()]
    assert sorted(index for index in seen if index != PADDING) == rows.tolist()
    assert len(seen) == -(-len(rows) // world) * world
    assert len({len(layer) for layer in dealt}) == 1


@pytest.mark.parametrize("world", [1, 2, 3])
def test_train__each_image_once_whatever_pairs_it_serves(folder: Path, world: int) -> None:
    frame = FeatureStore.open(folder).manifest.frame
    dealt = _loaders(folder, "train", world)
    paths = Counter(
        path
        for layer in dealt
        for batch in layer
        for path, index in zip(batch["path"], batch["index"].tolist(), strict=True)
        if index != PADDING
    )
    assert paths == Counter(frame["path"][frame["split"] == "train"].unique())


def test_train__order_by_seed_and_epoch(folder: Path) -> None:
    def order(seed: int, epoch: int) -> list[str]:
        loader = _data(folder, seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [path for batch in loader for path in batch["path"]]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(s, e)) for s, e in ((0, 0), (0, 1), (5, 0))}) == 3


def test_batch__is_the_rows_of_the_store(folder: Path) -> None:
    store = FeatureStore.open(folder)
    batch = next(iter(_data(folder, layers=["dino"]).test_dataloader()))
    rows = batch["index"].numpy()
    np.testing.assert_array_equal(batch["features"], np.load(folder / "dino.pooled.npy")[rows])
    for column in ("path", "dataset", "generator"):
        assert batch[column] == store.manifest.frame[column][rows].tolist()
    assert batch["label"].tolist() == store.manifest.frame["label"][rows].tolist()
    assert batch["label"].dtype == batch["index"].dtype == torch.int64


def test_dataset__padding_repeats_a_row_and_one_row_is_a_batch(folder: Path) -> None:
    dataset = _data(folder).val_dataloader().dataset
    batch = dataset.__getitems__([3, ~3])
    assert batch["index"].tolist() == [dataset[3]["index"].item(), PADDING]
    assert torch.equal(batch["features"][0], batch["features"][1])
    assert dataset[3]["features"].shape == (1, 6)


def test_source__says_what_the_features_are(folder: Path) -> None:
    data = FeatureDataModule(folder, layers=["dino", "clip"])
    assert isinstance(data, FeatureSource)
    assert data.feature_spec == SPEC[::-1]
    assert data.feature_origin == (None, None, None)


def test_parts__unknown_or_none(folder: Path) -> None:
    with pytest.raises(FeatureError, match=r"no layer 'vit'; it has: clip.pooled, dino.pooled"):
        _data(folder, layers=["vit"])
    with pytest.raises(FeatureError, match=r"layers: \[\] chooses nothing of .*; it has: clip.p"):
        _data(folder, layers=[])


def test_split__empty(tmp_path: Path) -> None:
    def no_test(frame) -> None:
        frame["split"] = frame["split"].replace("test", "")

    data = _data(feature_folder(tmp_path / "f", change=no_test))
    assert len(data.predict_dataloader().dataset) == 60
    message = (
        r"'test' \(\d+ train, \d+ val\); add images or raise data.splits.test_fraction, and ext"
    )
    with pytest.raises(DataError, match=message):
        data.test_dataloader()


def test_split__none_at_all_or_a_set_too_small_for_one(tmp_path: Path) -> None:
    def unsplit(frame) -> None:
        frame["split"] = ""

    def no_validation(frame) -> None:
        frame["split"] = frame["split"].replace("val", "train")

    data = _data(feature_folder(tmp_path / "f", change=unsplit))
    with pytest.raises(DataError, match="no rows of split 'val'; extract from a data module that"):
        data.val_dataloader()
    data = _data(feature_folder(tmp_path / "g", change=no_validation))
    message = (
        r"raise data.splits.val_fraction, and extract again; or set trainer.limit_val_batches to"
    )
    with pytest.raises(DataError, match=message):
        data.val_dataloader()


def test_arguments__batch_size_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size: must be at least 1, got 0"):
        FeatureDataModule(tmp_path, batch_size=0)
    with pytest.raises(FeatureError, match="no such feature folder"):
        _data(tmp_path / "none")
