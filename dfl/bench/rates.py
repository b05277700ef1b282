"""What `bench` times: each stage alone, and all of them together as `extract` has them."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import lightning.pytorch as pl
import pandas as pd
import torch
from torch import Tensor

from dfl.app.extraction import run_extraction
from dfl.backbones import FusedBackbone
from dfl.backbones.runner import FeaturesUnderWay, Runner
from dfl.data import ImageDataModule, Manifest
from dfl.data.images.views import FixedBatch
from dfl.features.extraction import ExtractionDataModule, Target
from dfl.features.writer import FeatureWriter

_VIEW: Final = "view"
_COMPARED: Final = 128  # images whose features are held against float32
_UNDER_WAY: Final = 4  # batches: enough that no thread waits, few enough that memory stays small


@dataclass
class BenchImages:
    """The images that everything is measured on.

    Attributes:
        data: A data module of them.
        pin_memory: Whether they go on to a CUDA device.
    """

    data: ImageDataModule
    pin_memory: bool
    _kept: list[Tensor] = field(default_factory=list)

    @classmethod
    def choose(cls, data: ImageDataModule, count: int, *, pin_memory: bool) -> "BenchImages":
        """Choose images evenly over a data module's.

        Args:
            data: The data module; it is set up here.
            count: How many at most.
            pin_memory: Whether they go on to a CUDA device.
        """
        data.prepare_data()
        data.setup()
        frame = data.manifest.frame.drop_duplicates("path")
        count = min(count, len(frame))
        rows = frame.iloc[[place * len(frame) // count for place in range(count)]]
        rows = rows.reset_index(drop=True)
        return cls(data.of(Manifest(rows, data.manifest.root)), pin_memory)

    def __len__(self) -> int:
        return len(self.data.manifest)

    def loader(self) -> Iterator[Tensor]:
        """Read and decode the images, in batches; uint8."""
        size, count = self.data.batch_size, len(self)
        starts = range(0, count, size)
        batches = [FixedBatch(range(at, min(at + size, count)), (_VIEW,)) for at in starts]
        loader = self.data.views_loader(
            self.data.manifest, {_VIEW: self.data}, batches, pin_memory=self.pin_memory
        )
        for batch in loader:
            yield batch["images"][_VIEW]

    def in_memory(self) -> list[Tensor]:
        """Give the batches, read once."""
        if not self._kept:
            self._kept = list(self.loader())
        return self._kept

    def files(self) -> list[Path]:
        """Say where the images are."""
        return self.data.manifest.paths()


def data_rate(images: BenchImages) -> float:
    """Measure the data path alone.

    Args:
        images: What to read.

    Returns:
        Images per second.
    """
    start = time.perf_counter()
    count = sum(len(image) for image in images.loader())
    return count / (time.perf_counter() - start)


def backbone_rate(runner: Runner, images: BenchImages) -> tuple[float, float, dict[str, Tensor]]:
    """Measure the backbones alone, on images in memory.

    Args:
        runner: What runs them.
        images: What they see.

    Returns:
        Images per second; the seconds that starting, compiling and the first batch took before
        that; and the features by layer.
    """
    batches = images.in_memory()
    device = torch.device(runner.device)
    names, size = list(runner.backbone.backbones), images.data.batch_size
    runner.backbone.to(device)
    start = time.perf_counter()
    with runner:
        for name in names:
            runner.submit(name, batches[0].to(device), batch_size=size).result()
        ready = time.perf_counter()
        done: list[dict[str, Tensor]] = []
        under_way: deque[list[FeaturesUnderWay]] = deque()
        for image in batches:
            # elsewhere such a copy may read what is another batch by then
            there = image.to(device, non_blocking=device.type == "cuda")
            under_way.append([runner.submit(name, there, batch_size=size) for name in names])
            if len(under_way) > _UNDER_WAY:
                done.append(_settled(under_way.popleft()))
        done += [_settled(pending) for pending in under_way]
        seconds = time.perf_counter() - ready
    features = {name: torch.cat([batch[name] for batch in done]) for name in done[0]}
    return sum(map(len, batches)) / seconds, ready - start, features


def cosine_to(
    reference: FusedBackbone, features: dict[str, Tensor], images: BenchImages
) -> pd.DataFrame:
    """Hold features against those of other backbones, on the first images.

    Args:
        reference: The backbones that count as exact, in float32.
        features: What `backbone_rate` gave.
        images: What it saw.

    Returns:
        By layer, the ``lowest`` and the ``mean`` cosine.
    """
    batches = images.in_memory()[: -(-_COMPARED // images.data.batch_size)]
    device = next(reference.parameters()).device
    exact = [reference(image.to(device)) for image in batches]
    rows = {}
    for name in features:
        expected = torch.cat([batch[name] for batch in exact]).cpu()
        cosine = torch.cosine_similarity(features[name][: len(expected)], expected)
        rows[name] = {"lowest": cosine.min().item(), "mean": cosine.double().mean().item()}
    return pd.DataFrame(rows).T


def extract_rate(runner: Runner, images: BenchImages, accelerator: str) -> float:
    """Measure the extraction as the command does it, from its first batch to its last feature.

    Args:
        runner: What runs the backbones.
        images: What they see.
        accelerator: Lightning's accelerator.

    Returns:
        Images per second.
    """
    with TemporaryDirectory() as folder:
        target = Target(Path(folder) / "features", _VIEW, runner.spec, {})
        extraction = ExtractionDataModule(
            {_VIEW: images.data}, [target], execution=runner.description
        )
        writer = _TimedWriter(extraction)
        run_extraction(extraction, runner, accelerator, devices=1, writer=writer)
    return len(images) / writer.seconds


class _TimedWriter(FeatureWriter):
    """A writer that knows how long it took from the first batch to the last shard."""

    seconds = 0.0

    def on_predict_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock."""
        if batch_idx == 0:
            self.seconds = -time.perf_counter()

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it."""
        super().on_predict_epoch_end(trainer, pl_module)
        self.seconds += time.perf_counter()


def _settled(pending: list[FeaturesUnderWay]) -> dict[str, Tensor]:
    return {name: value for one in pending for name, value in one.result().items()}
