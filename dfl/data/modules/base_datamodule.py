"""What all data modules of images share: loaders that give each image exactly once."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from dfl.data.images.crops import Crop
from dfl.data.images.dataset import ImageDataset, Preprocess, collate
from dfl.data.images.transforms import Augmentation
from dfl.data.images.views import FixedBatch, ViewsBatch, ViewsDataset
from dfl.data.manifest.manifest import Manifest
from dfl.data.modules.samplers import EvalSampler, TrainSampler
from dfl.errors import ConfigError, DataError
from dfl.recipe import Plain, describe
from dfl.types import Sample

__all__ = ["ImageDataModule"]

PREPROCESS_VERSION = 1  # raised when decoding, crops or augmentations give other pixels than before


class ImageDataModule(LightningDataModule, ABC):
    """Images of a manifest in typed batches.

    Each worker computes on one thread, and results do not depend on how many there are.

    Args:
        crop: How an image becomes a square; an explicit choice, since it changes the detector.
        train_crop: The same for training; ``crop`` by default.
        train_transforms: Augmentations of training, in their order.
        eval_transforms: Augmentations of validation, test, prediction and export, in their order.
        batch_size: Images in a batch of one process.
        num_workers: Processes that decode; 0 decodes in the main one.
        on_unreadable: ``error`` stops at an image that cannot be decoded; ``skip`` decodes all
            images first, leaves those out, and lists them in a report.
        seed: The seed of splits, of the order of training, and of augmentations.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        crop: Crop,
        train_crop: Crop | None = None,
        train_transforms: list[Augmentation] | None = None,
        eval_transforms: list[Augmentation] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        on_unreadable: Literal["error", "skip"] = "error",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"batch_size: must be at least 1, got {batch_size}")
        if num_workers < 0:
            raise ConfigError(f"num_workers: must be at least 0, got {num_workers}")
        self.crop = crop
        self.train_crop = train_crop or crop
        self.train_transforms = list(train_transforms or [])
        self.eval_transforms = list(eval_transforms or [])
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_unreadable = on_unreadable
        self.seed = seed
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """All rows, with their splits.

        Raises:
            DataError: If ``setup`` has not been called.
        """
        if self._manifest is None:
            raise DataError("the data module is not set up; call prepare_data() and setup() first")
        return self._manifest

    def setup(self, stage: str | None = None) -> None:
        """Read the manifest, once; every process does."""
        if self._manifest is None:
            self._manifest = self._load()

    @abstractmethod
    def _load(self) -> Manifest:
        """Return the manifest that ``prepare_data`` has settled."""

    @abstractmethod
    def _advice(self, split: str) -> str:
        """Say what to do when a split is empty."""

    def preprocess(self) -> Plain:
        """Describe how images are seen in a test: all but the images that decides a feature."""
        looks: dict[str, object] = {
            "version": PREPROCESS_VERSION,
            "crop": self.crop,
            "transforms": self.eval_transforms,
        }
        is_random = self.crop.is_random or any(each.is_random for each in self.eval_transforms)
        return describe(looks | ({"seed": self.seed} if is_random else {}))

    def reseeded(self, seed: int) -> Self:
        """Return a copy with another seed, whose splits are still to be made.

        Args:
            seed: The seed of splits, of the order of training, and of augmentations.
        """
        other = copy.copy(self)
        other.seed = seed
        other.trainer = None
        other._manifest = None
        return other

    def views_loader(
        self,
        manifest: Manifest,
        views: "Mapping[str, ImageDataModule]",
        batches: Sequence[FixedBatch],
    ) -> DataLoader[ViewsBatch]:
        """Return a loader of given batches, whose images are decoded once for several views.

        Args:
            manifest: The table of images.
            views: By name, a data module whose tests see images as they are wanted.
            batches: The rows and the views of each batch.
        """
        seen = {
            name: Preprocess(view.crop, tuple(view.eval_transforms), view.seed)
            for name, view in views.items()
        }
        return DataLoader(
            dataset=ViewsDataset(manifest, seen, batches),
            batch_size=None,  # an item is a batch
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of the training images, each once, whatever pairs it serves.

        Raises:
            DataError: If there is none.
        """
        rows = self._rows("train")
        unique = self.manifest.frame["path"].iloc[rows].drop_duplicates().index.tolist()
        dataset = ImageDataset(
            self.manifest,
            crop=self.train_crop,
            transforms=self.train_transforms,
            seed=self.seed,
            rows=unique,
        )
        replicas, rank = self._place()
        sampler = TrainSampler(dataset, num_replicas=replicas, rank=rank, seed=self.seed)
        if self.trainer is not None:
            # where a fit is resumed, Lightning lets workers begin before it tells the epoch
            progress = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(getattr(progress, "processed", 0))  # as Lightning has it; untyped
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of the validation rows, or raise a DataError if there is none."""
        return self._eval_loader(self._rows("val"))

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of the test rows, or raise a DataError if there is none."""
        return self._eval_loader(self._rows("test"))

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of all rows."""
        return self._eval_loader(range(len(self.manifest)))

    def _rows(self, split: str) -> list[int]:
        frame = self.manifest.frame
        rows = frame.index[frame["split"] == split].tolist()
        if not rows:
            raise DataError(f"no image is in the {split} split; {self._advice(split)}")
        return rows

    def _eval_loader(self, rows: Sequence[int]) -> DataLoader[Sample]:
        dataset = ImageDataset(
            self.manifest,
            crop=self.crop,
            transforms=self.eval_transforms,
            seed=self.seed,
            rows=rows,
        )
        replicas, rank = self._place()
        return self._loader(dataset, EvalSampler(dataset, num_replicas=replicas, rank=rank))

    def _place(self) -> tuple[int, int]:
        """Return the number of processes and which one this is."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def _loader(self, dataset: ImageDataset, sampler: EvalSampler) -> DataLoader[Sample]:
        # Keywords only: Lightning builds the loader again for prediction, from what it was given.
        return DataLoader(
            dataset=dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )
