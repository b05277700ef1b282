"""A data module whose splits are written to a file once, and read back by every process."""

import hashlib
import json
import logging
import re
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from dfl.data.images.crops import Crop
from dfl.data.images.transforms import Augmentation
from dfl.data.manifest.class_counts import log_counts
from dfl.data.manifest.duplicates import join_identical
from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.splits import assign_splits
from dfl.data.modules.base_datamodule import ImageDataModule
from dfl.data.sources.unreadable import drop_unreadable, read_report, without
from dfl.errors import ConfigError, DataError
from dfl.texts import give_back

__all__ = ["SplitDataModule"]

logger = logging.getLogger(__name__)

VERSION = 2  # raised when the same settings would give another split


class SplitDataModule(ImageDataModule):
    """Images with a split file.

    The file's name holds a hash of everything that the split follows from, so other settings never
    meet the file of these. It is a manifest, and may be read by any tool.

    Args:
        crop: As in ``ImageDataModule``, as are all others that are not described here.
        train_crop: See there.
        train_transforms: See there.
        eval_transforms: See there.
        batch_size: See there.
        num_workers: See there.
        on_unreadable: See there; the report stands beside the split file.
        seed: See there.
        test_fraction: The tested fraction of each dataset and class, in [0, 1].
        val_fraction: The validated fraction of what is not tested, in [0, 1).
        split_dir: The folder of split files.
    """

    def __init__(
        self,
        *,
        crop: Crop,
        train_crop: Crop | None,
        train_transforms: list[Augmentation] | None,
        eval_transforms: list[Augmentation] | None,
        batch_size: int,
        num_workers: int,
        on_unreadable: Literal["error", "skip"],
        seed: int,
        test_fraction: float,
        val_fraction: float,
        split_dir: str,
    ) -> None:
        super().__init__(
            crop=crop,
            train_crop=train_crop,
            train_transforms=train_transforms,
            eval_transforms=eval_transforms,
            batch_size=batch_size,
            num_workers=num_workers,
            on_unreadable=on_unreadable,
            seed=seed,
        )
        if not 0 <= test_fraction <= 1:
            raise ConfigError(f"test_fraction: must be in [0, 1], got {test_fraction}")
        if not 0 <= val_fraction < 1:
            raise ConfigError(f"val_fraction: must be in [0, 1), got {val_fraction}")
        self.test_fraction = test_fraction
        self.val_fraction = val_fraction
        self.split_dir = split_dir

    @cached_property
    def split_file(self) -> Path:
        """The file that holds the splits."""
        recipe = {
            "version": VERSION,
            "source": self._recipe(),
            "seed": self.seed,
            "test_fraction": self.test_fraction,
            "val_fraction": self.val_fraction,
            "on_unreadable": self.on_unreadable,
        }
        digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
        readable = re.sub(r"[^\w.+-]+", "_", self._name())[:60]
        return Path(self.split_dir) / f"{readable}-{digest}.csv"

    def reseeded(self, seed: int) -> Self:
        """Return a copy with another seed, and so with a split file of its own."""
        other = super().reseeded(seed)
        other.__dict__.pop("split_file", None)
        return other

    @property
    def unreadable_file(self) -> Path:
        """The report of images that were left out; there is none if all can be read."""
        return self.split_file.with_name(f"{self.split_file.stem}-unreadable.csv")

    def prepare_data(self) -> None:
        """Find the images, check them, and write their splits; one process does.

        Raises:
            DataError: If the images cannot be used; see ``pair_manifest``, ``scan_tree`` and
                ``Manifest.read``.
        """
        if self.split_file.exists():
            logger.info("splits: reading %s", self.split_file)
            return
        manifest = self._scan()
        if self.on_unreadable == "skip":
            manifest = drop_unreadable(manifest, self.unreadable_file)
        give_back()
        manifest = join_identical(manifest)
        give_back()
        manifest = assign_splits(
            manifest,
            seed=self.seed,
            test_fraction=self.test_fraction,
            val_fraction=self.val_fraction,
        )
        manifest.write(self.split_file)
        give_back()
        logger.info("splits: written to %s", self.split_file)

    def _load(self) -> Manifest:
        if not self.split_file.exists():
            raise DataError(f"{self.split_file}: no such split file; call prepare_data() first")
        found = self._scan()
        give_back()
        manifest = Manifest.read(self.split_file, found.root, check_paths=False)
        if self.on_unreadable == "skip":
            found = without(found, read_report(self.unreadable_file))
        if _same_images(found, manifest):
            return self._counted(manifest)
        now, then = (
            set(zip(frame["dataset"], frame["path"], frame["label"], strict=True))
            for frame in (found.frame, manifest.frame)
        )
        if now != then:
            raise DataError(
                f"{self.split_file}: was written for other images: {len(now - then)} are new and "
                f"{len(then - now)} are gone; delete the file, or set another split_dir"
            )
        return self._counted(manifest)

    def _counted(self, manifest: Manifest) -> Manifest:
        if self.trainer is None or self.trainer.is_global_zero:
            log_counts(manifest)
        return manifest

    @abstractmethod
    def _scan(self) -> Manifest:
        """Return the images that are there now, without reading them."""

    @abstractmethod
    def _recipe(self) -> object:
        """Return what the images follow from, as plain values."""

    @abstractmethod
    def _name(self) -> str:
        """Return what a person would call the images."""

    def _advice(self, split: str) -> str:
        advice = {
            "train": "lower test_fraction, or give images that are not all marked as test or val",
            "val": "raise val_fraction, add images, or set trainer.limit_val_batches to 0 "
            "and take out the callbacks that monitor val/",
            "test": "raise test_fraction, or add images",
        }
        return f"{advice[split]} ({self.split_file})"


def _same_images(found: Manifest, manifest: Manifest) -> bool:
    """Whether two tables are of the same images in the same order, as they nearly always are."""
    return len(found) == len(manifest) and all(
        bool((found.frame[name].array == manifest.frame[name].array).all())
        for name in ("dataset", "path", "label")
    )
