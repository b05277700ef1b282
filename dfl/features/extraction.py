"""Extraction as Lightning sees it: a task that runs backbones, shards dealt to processes."""

import logging
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dfl.backbones.runner import FeaturesUnderWay, Runner
from dfl.data import ImageDataModule, Manifest
from dfl.data.images.views import FixedBatch, ViewsBatch
from dfl.errors import FeatureError
from dfl.features.hashing import (
    DIGEST_BYTES,
    HashedImages,
    content_hashes,
    distinct_images,
    hash_images,
)
from dfl.features.processes import (
    check_alike,
    check_visible,
    facts_of,
    on_every_process,
    on_first_process,
)
from dfl.features.shards import ExtractionPlan, method_fingerprint
from dfl.features.store import FEATURES, FeatureStore
from dfl.folders import locked, recover_folder
from dfl.recipe import Recipe
from dfl.types import FeatureSpec

logger = logging.getLogger(__name__)

REPLACE: Final = "name another folder with --out, or replace them with --overwrite=true"


@dataclass(frozen=True)
class Target:
    """A feature folder that is to be made.

    Attributes:
        out: The folder; where it is a link, what that leads to.
        view: The name of the view of the images.
        spec: The layers.
        metadata: What makes them, stored beside them.

    Raises:
        FeatureError: If the folder is a mount point, whose place no other folder can take.
    """

    out: Path
    view: str
    spec: FeatureSpec
    metadata: Recipe

    def __post_init__(self) -> None:
        if self.out.is_symlink():
            object.__setattr__(self, "out", self.out.resolve())
        if self.out.is_mount():
            raise FeatureError(
                f"{self.out} is where a disk is mounted, and a finished folder could not take its "
                f"place; name a folder in it, as {self.out / 'features'}"
            )

    @property
    def backbones(self) -> list[str]:
        """The names of the backbones that make the layers."""
        return list(dict.fromkeys(layer.backbone for layer in self.spec))


@dataclass(frozen=True)
class Work:
    """A batch, and what becomes of it.

    Attributes:
        batch: Its images and views.
        targets: The targets that want it, as positions among all.
        shard: The shard that it is part of.
        ends: Whether it is the last batch of its shard.
    """

    batch: FixedBatch
    targets: tuple[int, ...]
    shard: int
    ends: bool


class ExtractionDataModule(pl.LightningDataModule):
    """Plan an extraction, and deal its pending shards to the processes of a trainer.

    An image is decoded once for all views and backbones, and a backbone sees a view of it only
    where its target has not got it yet.

    Args:
        views: By name, data modules of the same images, in the same order.
        targets: The feature folders to make.
        execution: How the backbones are run, which is a part of what identifies features.
        overwrite: Whether other features may be replaced.
        advice: What to do where they may not.

    Attributes:
        plans: The shards of each target whose features are not there, by its position among all.
        work: The batches of this process, in their order.
        images: The distinct images.
        image_of_row: For every row of the manifest the position of its image among them, ``(N,)``.
    """

    images: Manifest
    image_of_row: npt.NDArray[np.int64]

    def __init__(
        self,
        views: Mapping[str, ImageDataModule],
        targets: Sequence[Target],
        *,
        execution: Recipe,
        overwrite: bool = False,
        advice: str = REPLACE,
    ) -> None:
        super().__init__()
        self.views = dict(views)
        self.targets = tuple(targets)
        self.execution = execution
        self.overwrite = overwrite
        self.advice = advice
        self.plans: dict[int, ExtractionPlan] = {}
        self.work: list[Work] = []
        self._shards: dict[int, list[int]] = {}
        self._locks = ExitStack()
        # Lightning's switch: there may be fewer shards than processes
        self.allow_zero_length_dataloader_with_multiple_devices = True

    @property
    def first_view(self) -> ImageDataModule:
        """The data module that has the images, whatever the view."""
        return next(iter(self.views.values()))

    def prepare_data(self) -> None:
        """Find the images, and split them, once on a node."""
        for view in self.views.values():
            view.prepare_data()

    def setup(self, stage: str) -> None:
        """Plan for all processes; they share what takes long, which is to read all that is there.

        Raises:
            FeatureError: If a target holds other features that may not be replaced, or the
                processes do not see the same images, weights, precision or folders.
        """
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("an ExtractionDataModule is only used by a Trainer")
        for view in self.views.values():
            view.setup(stage)
        manifest = self.first_view.manifest
        self.images, self.image_of_row = distinct_images(manifest)
        rank, several = trainer.global_rank, trainer.world_size
        if several > 1:  # now: later Lightning overwrites all weights with those of the first one
            device = trainer.strategy.root_device
            model = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
            check_alike(trainer, self._facts(), device=model)
        contents = np.empty((len(self.images), DIGEST_BYTES), dtype=np.uint8)
        for first, part in enumerate(
            on_every_process(trainer, lambda: content_hashes(manifest, first=rank, step=several))
        ):
            contents[first::several] = part
        asked = self._plans(hash_images(manifest, contents))

        finished = on_first_process(trainer, lambda: self._lock(asked))
        files = [(n, name) for n, there in finished.items() for name in FEATURES.files_of(there)]
        doubtful = on_every_process(
            trainer,
            lambda: [
                n
                for n, name in files[rank::several]
                if FEATURES.damaged(asked[n].out, finished[n], only=(name,))
            ],
        )
        damaged = {n for part in doubtful for n in part}
        sizes, token = on_first_process(trainer, lambda: self._begin(asked, finished, damaged))
        # an interrupted extraction goes on with batches of the size it was begun with
        self.plans = {n: replace(asked[n], batch_size=size) for n, size in sizes.items()}
        if several > 1:
            check_visible(self._marks(token))
        looks = on_every_process(
            trainer,
            lambda: {
                n: (
                    plan.damaged(plan.there()[rank::several]),
                    plan.elsewhere(plan.missing()[rank::several]),
                )
                for n, plan in self.plans.items()
            },
        )
        self._shards = on_first_process(trainer, lambda: self._settle(looks))

    def predict_dataloader(self) -> DataLoader[ViewsBatch] | list[ViewsBatch]:
        """Load this process's shards in fixed batches; over all processes, each image once."""
        if self.trainer is None:
            return []
        self.work = list(self._deal(self.trainer.global_rank, self.trainer.world_size))
        batches = [work.batch for work in self.work]
        on_cuda = self.trainer.strategy.root_device.type == "cuda"
        return self.first_view.views_loader(self.images, self.views, batches, pin_memory=on_cuda)

    def check_batch(self, work: Work, named_hash: Tensor) -> None:
        """Refuse a batch of images that have changed since they were hashed.

        Args:
            work: The batch.
            named_hash: What was decoded, ``(B, 16)``, uint8.

        Raises:
            FeatureError: If one has: its features would be taken for those of what it was.
        """
        plan = self.plans[work.targets[0]]  # all are of the same images
        rows = work.batch.rows
        hashed = plan.hashed.each[rows.start : rows.stop]
        changed = np.flatnonzero((named_hash.numpy() != hashed).any(axis=1))
        if changed.size:
            path = self.images.paths()[rows.start + int(changed[0])]
            raise FeatureError(
                f"{path}: was changed since the images were hashed, or is another one on this "
                "machine; run the same command again"
            )

    def on_exception(self, exception: BaseException) -> None:
        """Name all unreadable images where one was met; Lightning tells."""
        self.first_view.on_exception(exception)

    def on_after_batch_transfer(self, batch: ViewsBatch, dataloader_idx: int) -> ViewsBatch:
        """Note the damaged images of a batch."""
        self.first_view.note_damage(batch["path"], batch["damage"])
        return batch

    def teardown(self, stage: str) -> None:
        """Say how many images were read in spite of damage, and list them; all processes do."""
        self.first_view.say_damage(self.trainer)

    def close(self) -> None:
        """Let other processes have the folders."""
        self._locks.close()

    def pending(self) -> list[int]:
        """Count, for each target, the images that it has still to see; nothing is begun.

        Raises:
            FeatureError: If a folder holds other features.
        """
        plans = self._plans(hash_images(self.first_view.manifest))
        return [plan.pending_images(advice=self.advice) for plan in plans]

    def _facts(self) -> dict[str, str]:
        return facts_of(
            [target.spec for target in self.targets],
            self.images,
            self.first_view.manifest,
            views={name: view.preprocess() for name, view in self.views.items()},
            execution=self.execution,
            versions=self.targets[0].metadata.get("versions"),
        )

    def _marks(self, token: str) -> dict[Path, Path]:
        """Name a file of each target that is there by now, for whoever sees its folder."""
        marks = {target.out: target.out / FEATURES.document for target in self.targets}
        return marks | {plan.out: plan.mark(token) for plan in self.plans.values()}

    def _plans(self, hashed: HashedImages) -> list[ExtractionPlan]:
        return [
            ExtractionPlan(
                target.out,
                hashed,
                method_fingerprint(
                    target.spec,
                    preprocess=self.views[target.view].preprocess(),
                    execution=self.execution,
                ),
                self.first_view.batch_size,
                target.spec,
            )
            for target in self.targets
        ]

    def _lock(self, asked: Sequence[ExtractionPlan]) -> dict[int, Recipe]:
        """Lock the folders of all targets, for the first process.

        Returns:
            The descriptions of those that say that they are finished, by target.
        """
        # all runs lock in the same order, so that none waits for one that waits for it
        for plan in sorted(asked, key=lambda plan: plan.out.absolute()):
            self._lock_folder(plan)
        finished = {}
        for n, plan in enumerate(asked):
            if FEATURES.is_of(plan.out, plan.fingerprint):
                finished[n] = FEATURES.read(plan.out)
            else:
                self._find(plan)  # nothing, or it raises
            for other in plan.others():
                logger.info(
                    "%s: of an extraction of other images, backbones or settings that was "
                    "interrupted; remove it if it is not to go on",
                    other,
                )
        return finished

    def _lock_folder(self, plan: ExtractionPlan) -> None:
        last = plan.fingerprint

        def check(note: str) -> None:
            # twice: who has just got the lock may not have written its own note yet
            nonlocal last
            if note == last != plan.fingerprint and note and not self.overwrite:
                raise FeatureError(
                    f"{plan.out}: another process is making other features there; name another "
                    "folder"
                )
            last = note

        self._locks.enter_context(locked(plan.out, note=plan.fingerprint, on_wait=check))
        recover_folder(plan.out)

    def _begin(
        self, asked: Sequence[ExtractionPlan], finished: Collection[int], damaged: Collection[int]
    ) -> tuple[dict[int, int], str]:
        """Begin what is not finished, for the first process.

        Args:
            asked: The plans of all targets.
            finished: Those that say that they are finished.
            damaged: Those of which a process finds a file damaged; it may see an older state.

        Returns:
            The size of a batch of what is begun, by target, and the token that marks its folder.
        """
        sizes, token = {}, uuid.uuid4().hex
        for n, plan in enumerate(asked):
            store = None
            if n in finished:
                store = self._find(plan) if n in damaged else FeatureStore.open(plan.out)
            if store is not None:  # then only the folder of the images may be new
                store.note_root(self.first_view.manifest.root)
                # of a run that was killed while it cleaned up
                shutil.rmtree(plan.folder, ignore_errors=True)
                continue
            begun = plan.start()
            sizes[n] = begun.batch_size
            begun.mark(token).touch()  # anew: a folder of this name may be left on a machine
        return sizes, token

    def _find(self, plan: ExtractionPlan) -> FeatureStore | None:
        """Look for whole features, all of which are read."""
        return FeatureStore.find(
            plan.out, plan.fingerprint, overwrite=self.overwrite, advice=self.advice
        )

    def _settle(
        self, looks: Sequence[Mapping[int, tuple[list[int], dict[int, Path]]]]
    ) -> dict[int, list[int]]:
        """Take over what others have, and remove what is damaged, for the first process.

        Args:
            looks: By process and target, the damaged shards of its share, and files of others for
                those that are missing.

        Returns:
            The shards that are to be made, by target.
        """
        for n, plan in self.plans.items():
            plan.take_over({shard: file for look in looks for shard, file in look[n][1].items()})
            # again: on another machine, what was written last may be seen later
            doubtful = sorted(shard for look in looks for shard in look[n][0])
            plan.remove(plan.damaged(doubtful))
        return {n: plan.missing() for n, plan in self.plans.items()}

    def _deal(self, rank: int, world_size: int) -> Iterator[Work]:
        """Cut the shards of a process into batches; targets that miss the same one share them."""
        wanted: dict[tuple[int, int], list[int]] = {}
        plan_of: dict[int, ExtractionPlan] = {}
        for target, plan in self.plans.items():
            plan_of.setdefault(plan.batch_size, plan)
            for shard in self._shards[target]:
                wanted.setdefault((plan.batch_size, shard), []).append(target)
        for size, shard in sorted(wanted)[rank::world_size]:
            targets = tuple(wanted[size, shard])
            views = tuple(dict.fromkeys(self.targets[target].view for target in targets))
            batches = list(plan_of[size].batches(shard))
            for rows in batches:
                ends = rows is batches[-1]
                yield Work(FixedBatch(rows, views), targets, shard, ends)


class FeatureExtractionTask(pl.LightningModule):
    """Run frozen backbones over images; there is nothing to train.

    Args:
        runner: What runs the backbones.
        extraction: What says which backbones are to see which view.
    """

    def __init__(self, runner: Runner, extraction: ExtractionDataModule) -> None:
        super().__init__()
        self.backbone = runner.backbone
        self._runner = runner
        self._extraction = extraction
        self._running = ExitStack()

    def on_predict_start(self) -> None:
        """Take the threads, and compile: the backbones are on their device now."""
        if self._extraction.work:
            self._running.enter_context(self._runner)

    def transfer_batch_to_device(
        self, batch: ViewsBatch, device: torch.device, dataloader_idx: int
    ) -> ViewsBatch:
        """Move the images alone: to look at the rest there would wait for the passes under way."""
        images = super().transfer_batch_to_device(batch["images"], device, dataloader_idx)
        return {**batch, "images": images}

    def predict_step(self, batch: ViewsBatch, batch_idx: int) -> dict[int, list[FeaturesUnderWay]]:
        """Start the passes that the batch's targets want; by target, what they will give."""
        under_way: dict[tuple[str, str], FeaturesUnderWay] = {}
        results: dict[int, list[FeaturesUnderWay]] = {}
        work = self._extraction.work[batch_idx]
        size = self._extraction.plans[work.targets[0]].batch_size
        for number in work.targets:
            target = self._extraction.targets[number]
            for name in target.backbones:
                if (target.view, name) not in under_way:
                    image = batch["images"][target.view]
                    started = self._runner.submit(name, image, batch_size=size)
                    under_way[target.view, name] = started
                results.setdefault(number, []).append(under_way[target.view, name])
        return results

    def close(self) -> None:
        """Give the threads back."""
        self._running.close()
