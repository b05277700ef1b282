"""Writing features: each process keeps its own shards, the first one joins them at last."""

import logging
import shutil
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, cast

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt

from dfl.backbones.runner import FeaturesUnderWay
from dfl.backbones.weights import why_not_finite
from dfl.data.images.views import ViewsBatch
from dfl.data.manifest.manifest import Manifest
from dfl.errors import FeatureError
from dfl.features.extraction import ExtractionDataModule, FeatureExtractionTask, Work
from dfl.features.matrices import Matrix
from dfl.features.shards import ExtractionPlan
from dfl.features.store import FEATURES, new_store
from dfl.files import is_full_disk
from dfl.recipe import Recipe

logger = logging.getLogger(__name__)

_UNDER_WAY: Final = 128
"""So many images may be on their way through the backbones, or two batches, if that is more."""
_WRITES: Final = 4
"""So many shards may wait for a slow disk, each with its features in memory."""
_PATIENCE_S: Final = 900.0
"""How long nothing may come from the other processes before this one goes to the barrier."""

Layers = dict[str, Matrix]


class FeatureWriter(pl.Callback):
    """Write what `FeatureExtractionTask` predicts, a shard at a time; gather nothing in memory.

    It waits for a batch only when others are under way behind it, and a thread of its own writes
    the shards, so that the backbones always have work; and what is in memory is bounded.

    Args:
        extraction: What is made where.
    """

    def __init__(self, extraction: ExtractionDataModule) -> None:
        self._extraction = extraction
        self._under_way: deque[tuple[Work, dict[int, list[FeaturesUnderWay]]]] = deque()
        self._done: dict[int, list[Layers]] = {}
        self._writes: deque[Future[None]] = deque()
        self._disk: ThreadPoolExecutor | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the thread that writes."""
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="shards")

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: dict[int, list[FeaturesUnderWay]],
        batch: ViewsBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take a batch that has been started, and write the shards that are complete by now."""
        work = self._extraction.work[batch_idx]
        self._extraction.check_batch(work, batch["named_hash"])
        self._under_way.append((work, outputs))
        while len(self._under_way) > 2 and self._images() > _UNDER_WAY:
            self._settle(pl_module)

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the rest, until all of it is written."""
        while self._under_way:
            self._settle(pl_module)
        self._wait_for_writes(0)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write what is complete: what is made need not be made again."""
        if self._disk is not None:
            self._disk.shutdown()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wait until every process has written its shards."""
        if self._disk is not None:
            self._disk.shutdown()
        if trainer.world_size > 1:
            self._wait_for_others()

    def _images(self) -> int:
        return sum(len(work.batch.rows) for work, _ in self._under_way)

    def _settle(self, task: pl.LightningModule) -> None:
        """Wait for the oldest batch under way."""
        work, results = self._under_way.popleft()
        for target, pending in results.items():
            layers: Layers = {}
            for one in pending:
                layers |= {name: value.numpy() for name, value in one.result().items()}
            self._done.setdefault(target, []).append(layers)
            if work.ends and self._disk is not None:
                batches = self._done.pop(target)
                self._writes.append(
                    self._disk.submit(self._write, target, work.shard, batches, task)
                )
                self._wait_for_writes(_WRITES)

    def _wait_for_writes(self, left: int) -> None:
        """Wait until no more than some shards are still to be written, and raise what failed."""
        while self._writes and (len(self._writes) > left or self._writes[0].done()):
            self._writes.popleft().result()

    def _write(
        self, target: int, shard: int, batches: list[Layers], task: pl.LightningModule
    ) -> None:
        plan = self._extraction.plans[target]
        features = {
            layer.name: np.concatenate([batch[layer.name] for batch in batches])
            for layer in plan.spec
        }
        for layer in plan.spec:
            finite = np.isfinite(features[layer.name]).all(axis=1)
            if not finite.all():
                first = plan.rows(shard)[int(np.argmin(finite))]
                network = cast(FeatureExtractionTask, task).backbone.backbones[layer.backbone]
                precision = str(self._extraction.execution.get("precision"))
                raise FeatureError(
                    f"{layer.name}: gives values that are not finite, first for "
                    f"{self._extraction.images.paths()[first]}: "
                    f"{why_not_finite(network.state_dict(), precision)}"
                )
        try:
            plan.write(shard, features)
        except OSError as err:
            if not is_full_disk(err):
                raise
            raise FeatureError(
                f"{plan.folder}: the disk is full ({err.strerror}); "
                f"{plan.shards - len(plan.missing())} of {plan.shards} shards are kept: make room, "
                "and run the same command again"
            ) from err

    def _wait_for_others(self) -> None:
        """Wait at leisure: a barrier gives up after half an hour, whether or not all are well."""
        left, pause, news = -1, 0.1, time.monotonic()
        plans = self._extraction.plans.values()
        while time.monotonic() - news < _PATIENCE_S:
            missing = sum(len(plan.missing()) for plan in plans)
            if missing == 0:
                return
            if missing != left:
                left, news = missing, time.monotonic()
            time.sleep(pause)
            pause = min(5.0, 1.2 * pause)


def join_all(extraction: ExtractionDataModule) -> None:
    """Make the feature folders of an extraction whose shards are all there.

    Nobody waits for it: one process does it, when the others have left.

    Args:
        extraction: What is made where.

    Raises:
        FeatureError: As for `join_shards`.
    """
    for target, plan in extraction.plans.items():
        join_shards(
            plan,
            extraction.first_view.manifest,
            extraction.image_of_row,
            metadata=extraction.targets[target].metadata,
            overwrite=extraction.overwrite,
        )


def join_shards(
    plan: ExtractionPlan,
    manifest: Manifest,
    image_of_row: npt.NDArray[np.int64],
    *,
    metadata: Recipe,
    overwrite: bool = False,
) -> None:
    """Make the feature folder from finished shards, one shard in memory at a time.

    Args:
        plan: The shards, all of them there.
        manifest: All rows; those that name the same image get the same features.
        image_of_row: For every row the position of its image among the distinct ones, ``(N,)``.
        metadata: What made the features.
        overwrite: Whether other features that are there by now may be replaced.

    Raises:
        FeatureError: If a shard is damaged, the disk is full, or another run has written other
            features meanwhile; the shards are kept.
    """
    order = np.argsort(image_of_row, kind="stable")
    first_row = np.searchsorted(image_of_row[order], np.arange(plan.images + 1))
    with new_store(
        plan.out,
        manifest,
        spec=plan.spec,
        metadata=metadata | {"fingerprint": plan.fingerprint},
        overwrite=overwrite or FEATURES.is_of(plan.out, plan.fingerprint),
        workspace=plan.folder,
    ) as matrices:
        for shard in range(plan.shards):
            span = plan.rows(shard)
            rows = order[first_row[span.start] : first_row[span.stop]]
            features = plan.read(shard)
            if features is None:
                raise FeatureError(
                    f"{plan.file(shard)}: damaged; run the same command again, which makes it anew "
                    "and keeps the other shards"
                )
            for name, matrix in matrices.items():
                matrix[rows] = features[name][image_of_row[rows] - span.start]
    shutil.rmtree(plan.folder, ignore_errors=True)
