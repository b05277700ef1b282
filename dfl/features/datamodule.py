"""Feature folders as a data module: heads train from the store without a backbone.

A batch is read from the feature files when its turn comes, row by row where the order is random,
so a folder may be larger than memory; what the system's file cache holds is not read again.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from dfl.data.manifest.manifest import Manifest
from dfl.data.modules.samplers import EvalSampler, TrainSampler
from dfl.errors import ConfigError, DataError
from dfl.features.store import FeatureStore
from dfl.types import PADDING, Batch, FeatureOrigin, FeatureSpec


class FeatureDataset(Dataset[Batch]):
    """Rows of a feature folder, read from its files a batch at a time.

    Args:
        store: The feature folder.
        layers: Which layers to concatenate; None for all.
        rows: Which rows of the folder, shape ``(M,)``.
    """

    def __init__(
        self,
        store: FeatureStore,
        layers: list[str] | None,
        rows: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    ) -> None:
        self._features = store.rows(layers)
        self._rows = rows
        self._frame = store.manifest.frame
        self._label = self._frame["label"].to_numpy(dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Batch:
        """Give a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: list[int]) -> Batch:
        """Give a batch; a position ``~i`` is row i again, as padding."""
        asked = np.asarray(positions, dtype=np.int64)
        rows = self._rows[np.where(asked < 0, ~asked, asked)]
        return {
            "features": torch.from_numpy(self._features.take(rows)),
            "label": torch.from_numpy(self._label[rows]),
            "path": self._texts("path", rows),
            "dataset": self._texts("dataset", rows),
            "generator": self._texts("generator", rows),
            "index": torch.from_numpy(np.where(asked < 0, PADDING, rows)),
        }

    def _texts(self, column: str, rows: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> list[str]:
        # the column stays as compact as the table has it: a Python object a text is five times that
        texts: list[str] = self._frame[column].array.take(rows).tolist()
        return texts


class FeatureDataModule(pl.LightningDataModule):
    """Yield features from a folder that `extract` or `encode` made, by its manifest's splits.

    Args:
        features: The feature folder.
        layers: Which layers to concatenate: names of layers (``clip.pooled``) or of backbones
            (``clip``); all if left out.
        batch_size: Rows in a batch of one process.
        seed: Decides the order of training.

    Raises:
        ConfigError: If `batch_size` is not positive.
    """

    def __init__(
        self, features: Path, layers: list[str] | None = None, batch_size: int = 256, seed: int = 0
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"batch_size: must be at least 1, got {batch_size}")
        self.features = Path(features)
        self.layers = layers
        self.batch_size = batch_size
        self.seed = seed
        self._store: FeatureStore | None = None

    @property
    def store(self) -> FeatureStore:
        """The feature folder, opened when first asked for."""
        if self._store is None:
            self._store = FeatureStore.open(self.features)
        return self._store

    @property
    def manifest(self) -> Manifest:
        """The rows of the folder."""
        return self.store.manifest

    @property
    def feature_spec(self) -> FeatureSpec:
        """What the columns of ``features`` are."""
        return self.store.select(self.layers)

    @property
    def feature_origin(self) -> FeatureOrigin:
        """What made the features."""
        return self.store.origin(self.layers)

    def setup(self, stage: str) -> None:
        """Open the folder, and check that the layers are there."""
        self.store.select(self.layers)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load the training rows in random order; an image that serves two pairs comes once."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Load the validation rows in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Load the test rows in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Load all rows in order."""
        return self._loader(None)

    def _loader(self, split: str | None) -> DataLoader[Batch]:
        frame = self.manifest.frame
        chosen = np.ones(len(frame), dtype=bool) if split is None else frame["split"] == split
        rows = np.flatnonzero(chosen)
        if split == "train":
            rows = rows[~frame["path"].iloc[rows].duplicated()]
        if not len(rows):
            raise DataError(
                f"{self.features} has no rows of split {split!r}{_remedy(frame, split)}"
            )
        dataset = FeatureDataset(self.store, self.layers, rows)
        rank, world = 0, 1
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
        sampler: Sampler[int] = (
            TrainSampler(dataset, num_replicas=world, rank=rank, seed=self.seed)
            if split == "train"
            else EvalSampler(dataset, num_replicas=world, rank=rank)
        )
        return DataLoader(
            dataset, batch_size=self.batch_size, sampler=sampler, collate_fn=_as_it_is
        )


def _remedy(frame: pd.DataFrame, split: str | None) -> str:
    """Say what the rows are, and what to do for some of a split."""
    there = frame["split"][frame["split"] != ""].value_counts().to_dict()
    if not there:
        return "; extract from a data module that splits, or from a manifest with that split"
    found = ", ".join(f"{count} {name}" for name, count in there.items())
    more = {
        "train": "lower data.splits.test_fraction",
        "val": "raise data.splits.val_fraction",
        "test": "raise data.splits.test_fraction",
    }.get(str(split))
    without = (
        "; or set trainer.limit_val_batches to 0 and take out the callbacks that monitor val/"
        if split == "val"
        else ""
    )
    return f" ({found}); add images or {more}, and extract again{without}"


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401  torch types what a dataset fetches as a list
    return batch
