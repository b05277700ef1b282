"""A progress bar in images per second."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

_LOSS: Final = "train/loss"


class ThroughputBar(TQDMProgressBar):
    """Lightning's bar with images per second, over all processes.

    Into a file or a pipe, where a bar would leave one line a step, it writes one plain line to the
    standard error at the end of each epoch instead, and on the way one every ``every_s`` seconds.

    Args:
        refresh_rate: Batches between two updates of the bar; 0 turns bar and lines off.
        every_s: Seconds between two plain lines.
    """

    def __init__(self, refresh_rate: int = 10, every_s: float = 30.0) -> None:
        self._plain = refresh_rate > 0 and not sys.stdout.isatty()
        super().__init__(refresh_rate=0 if self._plain else refresh_rate)
        self.every_s = every_s
        self._clocks: dict[str, _Clock] = {}

    @property
    def images_per_s(self) -> dict[str, float]:
        """Images per second of the last epoch of "train", "val", "test" and "predict" so far."""
        return {stage: clock.images_per_s for stage, clock in self._clocks.items()}

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Show images per second before the metrics, in place of the version number."""
        metrics = super().get_metrics(trainer, pl_module) | _loss(trainer)
        metrics.pop("v_num", None)
        if "train" in self._clocks:
            metrics = {"images/s": f"{self._clocks['train'].images_per_s:.0f}"} | metrics
        return metrics

    def on_train_epoch_start(self, trainer: Trainer, *args: object) -> None:
        """Start the clock."""
        super().on_train_epoch_start(trainer, *args)
        self._clocks["train"] = _Clock()

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Count the images."""
        self._count("train", trainer, args, self.total_train_batches)
        super().on_train_batch_end(trainer, *args)  # type: ignore[arg-type]  # passed through

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """State the epoch's speed and metrics."""
        super().on_train_epoch_end(trainer, pl_module)
        shown = _loss(trainer) | trainer.progress_bar_metrics
        self._say("train", trainer, *(f"{key} {value:.4g}" for key, value in shown.items()))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and hold that of the training around it."""
        super().on_validation_start(trainer, pl_module)
        if "train" in self._clocks:
            self._clocks["train"].hold()
        self._clocks["val"] = _Clock()

    def on_validation_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Count the images."""
        speed = self._count("val", trainer, args, self.total_val_batches_current_dataloader)
        self.val_progress_bar.set_postfix_str(speed, refresh=False)
        super().on_validation_batch_end(trainer, *args)  # type: ignore[arg-type]  # passed through

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """State the speed, and let the training's clock run on."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:
            self._say("val", trainer)
        if "train" in self._clocks:
            self._clocks["train"].go()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_test_start(trainer, pl_module)
        self._clocks["test"] = _Clock()

    def on_test_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Count the images."""
        speed = self._count("test", trainer, args, self.total_test_batches_current_dataloader)
        self.test_progress_bar.set_postfix_str(speed, refresh=False)
        super().on_test_batch_end(trainer, *args)  # type: ignore[arg-type]  # passed through

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """State the speed."""
        super().on_test_end(trainer, pl_module)
        self._say("test", trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_predict_start(trainer, pl_module)
        self._clocks["predict"] = _Clock()

    def on_predict_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Count the images."""
        speed = self._count("predict", trainer, args, self.total_predict_batches_current_dataloader)
        self.predict_progress_bar.set_postfix_str(speed, refresh=False)
        super().on_predict_batch_end(trainer, *args)  # type: ignore[arg-type]  # passed through

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """State the speed."""
        super().on_predict_end(trainer, pl_module)
        self._say("predict", trainer)

    def _count(self, stage: str, trainer: Trainer, args: tuple[object, ...], total: float) -> str:
        """Count the images of a batch that has ended, whose hook was called with these."""
        _, _, batch, index, *_ = args  # after module and outputs
        clock = self._clocks[stage]
        clock.images += _batch_size(batch) * trainer.world_size
        if time.monotonic() - clock.last_line > self.every_s and not trainer.sanity_checking:
            clock.last_line = time.monotonic()
            self._say(stage, trainer, f"batch {cast(int, index) + 1} of {total}")
        return f"{clock.images_per_s:.0f} images/s"

    def _say(self, stage: str, trainer: Trainer, *more: str) -> None:
        if not (self._plain and trainer.is_global_zero and stage in self._clocks):
            return
        clock = self._clocks[stage]
        head = f"train epoch {trainer.current_epoch}" if stage == "train" else stage
        own = clock.images // trainer.world_size
        images, speed = f"{own} images", f"{clock.images_per_s:.0f} images/s"
        if trainer.world_size > 1:  # others may have more images, or fewer
            images += " of the first process"
            speed = f"about {speed} of all {trainer.world_size}"
        print(f"{head}: {', '.join([images, speed, *more])}", file=sys.stderr, flush=True)


@dataclass
class _Clock:
    """Images and the time spent on them."""

    images: int = 0
    started: float | None = field(default_factory=time.monotonic)
    spent_s: float = 0.0
    last_line: float = field(default_factory=time.monotonic)

    @property
    def images_per_s(self) -> float:
        running = 0.0 if self.started is None else time.monotonic() - self.started
        seconds = self.spent_s + running
        return self.images / seconds if seconds > 0 else 0.0

    def hold(self) -> None:
        if self.started is not None:
            self.spent_s += time.monotonic() - self.started
            self.started = None

    def go(self) -> None:
        self.started = time.monotonic()


def _loss(trainer: Trainer) -> dict[str, float]:
    """Read the last training loss, for which the device is waited for."""
    loss = trainer.callback_metrics.get(_LOSS)
    return {} if loss is None else {_LOSS: float(loss)}


def _batch_size(batch: object) -> int:
    label = batch.get("label") if isinstance(batch, Mapping) else None
    return label.shape[0] if isinstance(label, torch.Tensor) else 0
