"""The data module of images: a source, its splits, and loaders that give each image once."""

import copy
import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal, Self

from lightning.pytorch import LightningDataModule, Trainer
from pandas.util import hash_pandas_object
from torch.utils.data import DataLoader

from dfl.data.checks.shortcuts import find_shortcuts, shortcut_warning
from dfl.data.checks.unreadable import (
    MAX_UNREADABLE,
    DamagedImages,
    can_read,
    drop_unreadable,
    read_report,
    say_unreadable,
    without,
)
from dfl.data.images.crops import Crop
from dfl.data.images.dataset import ImageDataset, collate
from dfl.data.images.decode import OnDamaged, UnreadableImageError
from dfl.data.images.preprocess import Draw, Preprocess
from dfl.data.images.transforms import Augmentation
from dfl.data.images.views import FixedBatch, ViewsBatch, ViewsDataset
from dfl.data.manifest.class_counts import log_counts
from dfl.data.manifest.duplicates import STRICTNESS, SameContentError, join_identical
from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.splits import DEFAULT_SPLITS, Splits, assign_splits
from dfl.data.modules.samplers import EvalSampler, TrainSampler
from dfl.data.sources.base import Source
from dfl.errors import ConfigError, DataError
from dfl.files import appears
from dfl.folders import locked
from dfl.processes import end_worker_with_parent, gathered, launched_rank
from dfl.recipe import Plain, Recipe, describe, fingerprint_of
from dfl.types import Batch, Sample

logger = logging.getLogger(__name__)

PREPROCESS_VERSION = 1  # raised when decoding, crops or augmentations give other pixels than before
SPLIT_VERSION = 2  # raised when the same settings would give another split


class ImageDataModule(LightningDataModule):
    """Images of a source in typed batches.

    Splits are written to a file once, and read back by every process. Its name holds a hash of
    everything that they follow from, so other settings never meet the file of these. It is a
    manifest, and may be read by any tool.

    Each worker computes on one thread, and results do not depend on how many there are.

    Args:
        source: Where the images come from.
        crop: How an image becomes a square; an explicit choice, since it changes the detector.
        train_crop: The same for training; ``crop`` by default.
        train_transforms: Augmentations of training, in their order.
        eval_transforms: Augmentations of validation, test, prediction and export, in their order.
        splits: How images are divided into train, val and test, and where that is kept.
        batch_size: Images in a batch of one process.
        batch_by_group: Train on the images of a group, such as a photograph and what was made of
            it, in one step of all processes together, as far as its size allows.
        num_workers: Processes that decode; 0 decodes in the main one.
        on_unreadable: ``error`` stops at an image that cannot be decoded, and names all of them;
            ``skip`` decodes all images first, leaves those out, and lists them in a report.
        max_unreadable: The share of a class of a dataset, in [0, 1], that ``skip`` may leave out:
            beyond it a class would be chosen by how it was stored.
        on_damaged: ``warn`` reads an image whose decoder got over damage, and counts and lists it;
            ``refuse`` makes it unreadable.
        unreadable_file: The report, a ``.csv``; beside the split file by default. Damaged images
            are listed beside it.
        on_label_conflict: ``error`` stops where a real and a fake image have the same content;
            ``skip`` leaves out all that have it, and lists them in a report beside the split file.
        seed: The seed of splits, of the order of training, and of augmentations.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        source: Source,
        *,
        crop: Crop,
        train_crop: Crop | None = None,
        train_transforms: list[Augmentation] | None = None,
        eval_transforms: list[Augmentation] | None = None,
        splits: Splits = DEFAULT_SPLITS,
        batch_size: int = 64,
        batch_by_group: bool = False,
        num_workers: int = 0,
        on_unreadable: Literal["error", "skip"] = "error",
        max_unreadable: float = MAX_UNREADABLE,
        on_damaged: OnDamaged = "warn",
        unreadable_file: Path | None = None,
        on_label_conflict: Literal["error", "skip"] = "error",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"batch_size: must be at least 1, got {batch_size}")
        if num_workers < 0:
            raise ConfigError(f"num_workers: must be at least 0, got {num_workers}")
        if not 0 <= max_unreadable <= 1:
            raise ConfigError(f"max_unreadable: must be in [0, 1], got {max_unreadable}")
        self.source = source
        self.crop = crop
        self.train_crop = train_crop or crop
        self.train_transforms = list(train_transforms or [])
        self.eval_transforms = list(eval_transforms or [])
        self.splits = splits
        self.batch_size = batch_size
        self.batch_by_group = batch_by_group
        self.num_workers = num_workers
        self.on_unreadable = on_unreadable
        self.on_label_conflict = on_label_conflict
        self.max_unreadable = max_unreadable
        self.on_damaged: OnDamaged = on_damaged
        self.seed = seed
        self.draw: Draw | None = None
        self._unreadable_file = unreadable_file
        self._manifest: Manifest | None = None
        self._damaged = DamagedImages()
        self._knows_shortcuts = False

    @property
    def manifest(self) -> Manifest:
        """All rows, with their splits.

        Raises:
            DataError: If ``setup`` has not been called.
        """
        if self._manifest is None:
            raise DataError("the data module is not set up; call prepare_data() and setup() first")
        return self._manifest

    @property
    def split_file(self) -> Path:
        """The file that holds the splits."""
        return self.splits.folder / f"{self._file_stem}.csv"

    @property
    def unreadable_file(self) -> Path:
        """The report of unreadable images; there is none if all can be read."""
        if self._unreadable_file is not None:
            return self._unreadable_file
        return self.splits.folder / f"{self._file_stem}-unreadable.csv"

    @property
    def damaged_file(self) -> Path:
        """The report of images that were read in spite of damage; none if all are sound."""
        stem = self.unreadable_file.stem.removesuffix("-unreadable")
        return self.unreadable_file.with_name(f"{stem}-damaged.csv")

    @property
    def conflict_file(self) -> Path:
        """The report of images whose content is there as real and as fake."""
        return self.splits.folder / f"{self._file_stem}-label-conflicts.csv"

    @cached_property
    def _file_stem(self) -> str:
        recipe: Recipe = {
            "version": SPLIT_VERSION,
            "source": self.source.recipe(),
            "seed": self.seed,
            "test_fraction": self.splits.test_fraction,
            "val_fraction": self.splits.val_fraction,
            "on_unreadable": self.on_unreadable,
        }
        if self.on_label_conflict != "error":
            recipe["on_label_conflict"] = self.on_label_conflict
        if not self.splits.published:
            recipe["published"] = False
        if self.on_damaged != "warn":
            recipe["on_damaged"] = self.on_damaged
        fingerprint = fingerprint_of(recipe)[:12]
        readable = re.sub(r"[^\w.+-]+", "_", self.source.title)[:60]
        return f"{readable}-{fingerprint}"

    def prepare_data(self) -> None:
        """Find the images, check them, and write their splits; one process does.

        Raises:
            DataError: If the images cannot be used.
        """
        if self._manifest is not None:
            return
        self.source.prepare()
        if not self.source.is_split:
            if self.on_unreadable == "skip":
                self._drop_unreadable(self._scan())
            return
        if not self.split_file.exists():
            # of several processes that begin at once one does it; the others read what it wrote
            with locked(self.split_file):
                if not appears(self.split_file):
                    self._write_splits()
                    return
        logger.info("splits: reading %s", self.split_file)

    def _write_splits(self) -> None:
        manifest = self._scan()
        if self.on_unreadable == "skip":
            manifest = self._drop_unreadable(manifest)
        leaves_out = self.on_label_conflict == "skip"
        try:
            manifest = join_identical(manifest, conflicts=self.conflict_file, skip=leaves_out)
        except SameContentError as err:
            # the same error page under the names of both, perhaps
            file = manifest.resolve(err.path)
            if not can_read(file) and (found := self._say_unreadable(manifest)) is not None:
                raise DataError(found) from err
            raise
        manifest = assign_splits(manifest, self.splits, seed=self.seed)
        manifest.write(self.split_file)
        logger.info("splits: written to %s", self.split_file)

    def _drop_unreadable(self, manifest: Manifest) -> Manifest:
        return drop_unreadable(
            manifest,
            self.unreadable_file,
            max_unreadable=self.max_unreadable,
            on_damaged=self.on_damaged,
        )

    def setup(self, stage: str | None = None) -> None:
        """Read the manifest, once; every process does.

        Raises:
            DataError: If the images are not those that were split.
        """
        if self._manifest is not None:
            return
        if self.source.is_split and not self.split_file.exists():
            raise DataError(f"{self.split_file}: no such split file; call prepare_data() first")
        found = self._scan()
        if self.on_unreadable == "skip":
            found = without(found, read_report(self.unreadable_file))
        if self.source.is_split and self.on_label_conflict == "skip":
            found = without(found, read_report(self.conflict_file))
        if self._tells:
            for note in found.notes:
                logger.info(note)
        self._manifest = self._read_splits(found) if self.source.is_split else found

    @property
    def _tells(self) -> bool:
        """Whether this is the process that says what was found; the others find the same."""
        return launched_rank() == 0 if self.trainer is None else self.trainer.is_global_zero

    def _scan(self) -> Manifest:
        """List the images with the splits that they come with, unless those are not to count."""
        found = self.source.scan()
        given = found.frame["split"] != ""
        if self.splits.published or not given.any():
            return found
        line = f"splits.published is false, so {given.sum()} images with a split are dealt one anew"
        frame = found.frame.assign(split="")
        return replace(found, frame=frame, notes=(*found.notes, line))

    def _read_splits(self, found: Manifest) -> Manifest:
        manifest = Manifest.read(self.split_file, found.root, check_paths=False)
        if not _same_images(found, manifest):
            now, then = (
                set(zip(frame["dataset"], frame["path"], frame["label"], strict=True))
                for frame in (found.frame, manifest.frame)
            )
            if now != then:
                raise DataError(
                    f"{self.split_file}: was written for other images: {len(now - then)} are new "
                    f"and {len(then - now)} are gone; delete the file, or set another splits.folder"
                )
        validated = _check_published(found, manifest, self.split_file)
        if self._tells:
            if self.splits.published and (given := (found.frame["split"] != "").sum()):
                logger.info(
                    "%d images keep the split that they come with; splits.published false deals "
                    "them one anew",
                    given,
                )
            for dataset, images in validated.items():
                logger.info(
                    "%s: %d images of its training part are validated on, since it has no "
                    "validation part; splits.val_fraction 0 trains on them",
                    dataset,
                    images,
                )
            log_counts(manifest)
            if not self._knows_shortcuts and (shortcuts := find_shortcuts(manifest)):
                logger.warning(shortcut_warning(shortcuts))
            self._knows_shortcuts = True  # a copy with another seed has the same files
        return manifest

    def on_exception(self, exception: BaseException) -> None:
        """Name all unreadable images where a loader met one; Lightning tells."""
        if self._manifest is not None and isinstance(exception, UnreadableImageError):
            found = self._say_unreadable(self._manifest)
            if found is not None:
                exception.reword(found)

    def _say_unreadable(self, manifest: Manifest) -> str | None:
        return say_unreadable(manifest, self.unreadable_file, self.on_damaged)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Note the damaged images of a batch, in whatever loop of Lightning."""
        self.note_damage(batch["path"], batch.get("damage", []))
        return batch

    def note_damage(self, paths: Sequence[str], damage: Sequence[str]) -> None:
        """Note the images of a batch that were read in spite of damage.

        Args:
            paths: Its images, as the manifest has them.
            damage: What was found of each.
        """
        self._damaged.note(paths, damage, self.damaged_file)

    def teardown(self, stage: str) -> None:
        """Say how many images were read in spite of damage, and list them; all processes do."""
        self.say_damage(self.trainer)

    def say_damage(self, trainer: Trainer | None) -> None:
        """Say what `teardown` does.

        Args:
            trainer: What ran the loops, in one or several processes.
        """
        everywhere = gathered(self._damaged)
        if trainer is None or trainer.is_global_zero:
            self._damaged.write(self.damaged_file, everywhere)

    def of(
        self,
        manifest: Manifest,
        *,
        train_transforms: Sequence[Augmentation] | None = None,
        eval_transforms: Sequence[Augmentation] | None = None,
        seed: int | None = None,
        crop: Crop | None = None,
        draw: Draw | None = None,
    ) -> Self:
        """Return a copy that gives the images of a manifest as this one gives its own.

        Args:
            manifest: The table of images; its splits are kept, and its images are not looked for.
            train_transforms: Augmentations of training; those of this module by default.
            eval_transforms: Augmentations of everything else; those of this module by default.
            seed: The seed of the order of training, of augmentations and random crops; that of this
                module by default.
            crop: How an image becomes a square, but for training; that of this module by default.
            draw: Which of several draws of its images it gives, but for training; that of this
                module by default.
        """
        other = self.reseeded(self.seed if seed is None else seed)
        other._unreadable_file = self.unreadable_file  # of which this is a part
        other.source = _Given(manifest)
        other._manifest = manifest
        if train_transforms is not None:
            other.train_transforms = list(train_transforms)
        if eval_transforms is not None:
            other.eval_transforms = list(eval_transforms)
        other.crop, other.draw = crop or self.crop, draw or self.draw
        return other

    def preprocess(self) -> Plain:
        """Describe crop, transforms of a test and, where one of them is random, the seed.

        Of a draw, the description holds its number and, where groups share its random numbers,
        what the groups are.
        """
        looks: dict[str, object] = {
            "version": PREPROCESS_VERSION,
            "crop": self.crop,
            "transforms": self.eval_transforms,
        }
        is_random = self.crop.is_random or any(each.is_random for each in self.eval_transforms)
        if is_random:
            looks["seed"] = self.seed
            if self.draw is not None:
                looks |= {"draw": self.draw.number, "same_for": self.draw.same_for}
                if self.draw.same_for == "group":
                    looks["groups"] = self._groups_hash
        return describe(looks)

    @cached_property
    def _groups_hash(self) -> str:
        hashes = hash_pandas_object(self.manifest.frame["group"], index=False)
        return sha256(hashes.to_numpy().tobytes()).hexdigest()

    def reseeded(self, seed: int) -> Self:
        """Return a copy with another seed, whose splits are still to be made.

        Args:
            seed: The seed of splits, of the order of training, and of augmentations.
        """
        other = copy.copy(self)
        other.seed = seed
        for cached in ("_file_stem", "_groups_hash"):  # of files and groups of its own
            other.__dict__.pop(cached, None)
        other.trainer = None
        other._manifest = None
        return other

    def views_loader(
        self,
        manifest: Manifest,
        views: "Mapping[str, ImageDataModule]",
        batches: Sequence[FixedBatch],
        *,
        pin_memory: bool,
    ) -> DataLoader[ViewsBatch]:
        """Return a loader of given batches, whose images are decoded once for several views.

        Args:
            manifest: The table of images.
            views: By name, a data module whose tests see images as they are wanted.
            batches: The rows and the views of each batch.
            pin_memory: Whether they go on to a CUDA device.
        """
        seen = {
            name: Preprocess(view.crop, tuple(view.eval_transforms), view.seed, view.draw)
            for name, view in views.items()
        }
        # of the views' own tables, since one whose features depend on no group may have none
        drawn = next((view.manifest.frame for view in views.values() if view.draw), None)
        groups = None if drawn is None else drawn.drop_duplicates("path")["group"]
        return DataLoader(
            dataset=ViewsDataset(manifest, seen, batches, self.on_damaged, groups),
            batch_size=None,  # an item is a batch
            num_workers=self.num_workers,
            worker_init_fn=end_worker_with_parent,
            pin_memory=pin_memory,
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
            on_damaged=self.on_damaged,
        )
        replicas, rank = self._place()
        groups = self.manifest.frame["group"].iloc[unique].tolist() if self.batch_by_group else None
        sampler = TrainSampler(
            dataset, num_replicas=replicas, rank=rank, seed=self.seed, groups=groups
        )
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
            advice = self.source.advice(split)
            file = f" ({self.split_file})" if self.source.is_split else ""
            raise DataError(f"no image is in the {split} split; {advice}{file}")
        return rows

    def _eval_loader(self, rows: Sequence[int]) -> DataLoader[Sample]:
        dataset = ImageDataset(
            self.manifest,
            crop=self.crop,
            transforms=self.eval_transforms,
            seed=self.seed,
            rows=rows,
            on_damaged=self.on_damaged,
            draw=self.draw,
        )
        replicas, rank = self._place()
        return self._loader(dataset, EvalSampler(dataset, num_replicas=replicas, rank=rank))

    def _place(self) -> tuple[int, int]:
        """Return the number of processes and which one this is."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def _is_on_cuda(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _loader(self, dataset: ImageDataset, sampler: EvalSampler) -> DataLoader[Sample]:
        # Keywords only: Lightning builds the loader again for prediction, from what it was given.
        return DataLoader(
            dataset=dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            worker_init_fn=end_worker_with_parent,
            pin_memory=self._is_on_cuda(),
            persistent_workers=self.num_workers > 0,
        )


class _Given(Source):
    """A manifest that another part of a program has made."""

    is_split: ClassVar[bool] = False

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    @property
    def title(self) -> str:
        return "manifest"

    def scan(self) -> Manifest:
        return self._manifest

    def advice(self, split: str) -> str:
        return f"give a table in which some image is marked as {split}"


def _same_images(found: Manifest, manifest: Manifest) -> bool:
    """Whether two tables are of the same images in the same order, as they nearly always are."""
    return len(found) == len(manifest) and all(
        bool((found.frame[name].array == manifest.frame[name].array).all())
        for name in ("dataset", "path", "label")
    )


def _check_published(found: Manifest, manifest: Manifest, file: Path) -> Mapping[Hashable, int]:
    """Check that what a set was published with for tests or validation is not trained on.

    Args:
        found: The images with the splits that they come with.
        manifest: The same images with those that were written.
        file: Where they were written.

    Returns:
        By dataset, how many images that come with ``train`` are validated on.

    Raises:
        DataError: If an image has a less strict split than it comes with.
    """
    keys = ["dataset", "path"]
    given = found.frame.loc[found.frame["split"] != "", [*keys, "split"]]
    both = given.merge(manifest.frame[[*keys, "split"]], on=keys, suffixes=("_given", ""))
    loosened = both["split"].map(STRICTNESS) < both["split_given"].map(STRICTNESS)
    if loosened.any():
        first = both[loosened].iloc[0]
        raise DataError(
            f"{file}: {loosened.sum()} images come with a stricter split than it gives them, such "
            f"as {first['path']} ({first['split_given']}, here {first['split']}); delete the file, "
            "or set splits.published to false"
        )
    moved = (both["split_given"] == "train") & (both["split"] == "val")
    return both[moved]["dataset"].value_counts(sort=False).to_dict()
