from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.data import (
    JPEG,
    FolderDataModule,
    HorizontalFlip,
    Manifest,
    RandomCrop,
    Resize,
    TableDataModule,
)
from dfl.errors import DataError


@pytest.fixture
def like(image_root: Path) -> FolderDataModule:
    return FolderDataModule(
        image_root, crop=Resize(16), eval_transforms=[JPEG(20)], batch_size=5, seed=3
    )  # fmt: skip


@pytest.fixture
def table(image_root: Path) -> Manifest:
    rows = [
        {"path": f"{pair}/{side}/{i:03d}.png", "label": int(side[0]), "dataset": pair,
         "generator": "real", "split": ("train", "val")[i % 2], "group": f"{side}{i}"}
        for pair, side in (("beta", "1_fake"), ("alpha", "0_real"))
        for i in range(6)
    ]  # fmt: skip
    return Manifest.from_rows(rows, image_root)


def test_table__rows_in_their_order_seen_as_the_other_sees_them(table: Manifest, like) -> None:
    data = TableDataModule(table, like)
    data.setup()
    batches = list(data.predict_dataloader())
    paths = [path for batch in batches for path in batch["path"]]
    assert paths == table.frame["path"].tolist()
    assert len(batches[0]["path"]) == 5
    like.setup()
    seen = {path: image for b in like.predict_dataloader() for path, image in zip(b["path"], b["image"], strict=True)}  # fmt: skip  # noqa: E501
    for batch in batches:
        for path, image in zip(batch["path"], batch["image"], strict=True):
            assert torch.equal(image, seen[path])


def test_table__what_is_given_is_not_taken_over(table: Manifest, like) -> None:
    like.train_transforms, like.train_crop = [HorizontalFlip()], RandomCrop(8)
    same = TableDataModule(table, like)
    assert (same.train_transforms, same.train_crop, same.seed) == (
        like.train_transforms,
        like.train_crop,
        3,
    )
    assert same.preprocess() == like.preprocess()
    other = TableDataModule(table, like, train_transforms=[], eval_transforms=[], seed=0)
    assert (other.train_transforms, other.eval_transforms, other.seed) == ([], [], 0)
    assert next(iter(same.train_dataloader()))["image"].shape[-1] == 8
    assert len(like.eval_transforms) == 1


def test_table__splits_are_kept(table: Manifest, like) -> None:
    data = TableDataModule(table, like)
    trained = [path for batch in data.train_dataloader() for path in batch["path"]]
    assert sorted(trained) == sorted(table.select("train").frame["path"])
    labels = np.concatenate([batch["label"] for batch in data.val_dataloader()])
    assert labels.tolist() == table.select("val").frame["label"].tolist()
    with pytest.raises(DataError, match="no image is in the test split; give a table in which"):
        data.test_dataloader()
