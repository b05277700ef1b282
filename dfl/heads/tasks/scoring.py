"""What trained models share: batches in, a score table out, a checkpoint that says what it is."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TypedDict, cast

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.cli import LightningCLI, LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import BinaryAccuracy

from dfl.backbones.precision import SettledPrecision, autocast, faster_precision
from dfl.errors import CheckpointError, ConfigError
from dfl.evaluation import SCORE_COLUMNS
from dfl.heads.storage.checkpoint import CHECKPOINT_KEY, HeadDescription
from dfl.heads.tasks.epoch_scores import ScoreCollector, epoch_metrics
from dfl.recipe import Plain, Recipe, public_name
from dfl.types import UNKNOWN, Batch, FeatureOrigin

logger = logging.getLogger(__name__)

_HALF_WEIGHTS = ("bf16-true", "16-true")
_SHOWN = ("val/loss", "val/auroc")


class Step(TypedDict):
    """What a head makes of a batch, a value a sample, each of shape ``(B,)``."""

    loss: Tensor | None  # what is minimised; None where there are no labels, nan for unknown ones
    logit: Tensor | None  # higher = fake; None where the head does not classify
    logs: dict[str, Tensor]  # the loss's terms


class ScoringTask(pl.LightningModule, ABC):
    """Train a model that scores images, and test it per dataset and generator.

    What the model sees of a batch, and when it is built, is its subclass's affair.

    Args:
        optimizer: Makes the optimizer from the model's parameters; needed for fit only.
        lr_scheduler: Makes the scheduler from the optimizer, stepped once an epoch.

    Attributes:
        model: What is trained, once it is built.
        threshold: Subtracted from every logit, so that a score above 0 says fake: 0, unless the
            checkpoint has another, which a study chose on validation images.
        scores: The score table of the last validation, test or predict epoch, over all processes,
            in the manifest's order; empty where the model does not classify.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self._precision: SettledPrecision | None = None
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.model: nn.Module | None = None
        self.threshold = 0.0
        self.scores = _no_scores()
        # to look at each value on a GPU would wait for it
        self.train_accuracy = BinaryAccuracy(validate_args=False)
        self._unlabelled: str | None = None
        self._collector = ScoreCollector()

    # What a task is

    @abstractmethod
    def architecture(self) -> Recipe:
        """Give the arguments that rebuild the model, without weights and optimizer."""

    @abstractmethod
    def step(self, batch: Batch, label: Tensor | None) -> Step:
        """Score a batch; where labels ``(B,)`` are given, compute the loss."""

    @abstractmethod
    def description(self) -> HeadDescription:
        """Say what a checkpoint of this task needs besides the trained weights."""

    def trained(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """List the parameters that the optimizer gets.

        Args:
            model: What is trained, built.
        """
        return model.parameters()

    def run_in(self, precision: SettledPrecision) -> None:
        """Score images in a precision from now on, with and without a trainer.

        Args:
            precision: What a head computes stays in float32.

        Raises:
            ConfigError: If weights were to be cast to 16 bit.
        """
        _check_keeps_weights(precision)
        self._precision = precision

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        """Check the precision, and say where a device is slow in it.

        Raises:
            ConfigError: If weights were to be cast to 16 bit.
        """
        precision = str(self.trainer.precision)
        _check_keeps_weights(precision)
        device = self.trainer.strategy.root_device.type
        faster = faster_precision(precision, device)
        if faster is not None and self.trainer.is_global_zero:
            logger.warning(
                "precision: this %s only imitates %s, which is slow; --trainer.precision %s is not",
                device,
                precision,
                faster,
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimise what is trained alone."""
        if self.optimizer is None or self.model is None:
            raise ConfigError("fit needs model.optimizer, for example torch.optim.AdamW")
        try:
            optimizer = self.optimizer(self.trained(self.model))
            scheduler = self.lr_scheduler(optimizer) if self.lr_scheduler else None
        except (TypeError, ValueError) as err:
            raise ConfigError(f"model.optimizer or model.lr_scheduler: {err}") from err
        return cast(
            OptimizerLRScheduler, LightningCLI.configure_optimizers(self, optimizer, scheduler)
        )

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Look for an unknown label where no device has to be waited for."""
        unknown = batch["label"] == UNKNOWN
        self._unlabelled = batch["path"][int(unknown.nonzero()[0])] if unknown.any() else None
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Learn from a batch."""
        step = self.step(batch, batch["label"])
        if step["loss"] is None:
            raise ConfigError("this head is not trained by `dfl fit`; use `dfl heads`")
        if step["logit"] is not None and self._unlabelled is not None:
            raise ConfigError(
                f"{self._unlabelled}: its label is unknown ({UNKNOWN}), but it is in the train "
                "split; give it a label or take it out of the split"
            )
        size = len(batch["label"])
        loss = step["loss"].mean()
        logs = {f"train/{name}": value.mean() for name, value in step["logs"].items()}
        # the bar shows it when it is drawn: with prog_bar, every step would wait for the device
        self.log("train/loss", loss, batch_size=size, on_step=True, on_epoch=False)
        self.log_dict(logs, batch_size=size, on_step=True, on_epoch=False)
        if step["logit"] is not None:
            self.train_accuracy(step["logit"].detach().sigmoid(), batch["label"])
            self.log(
                "train/accuracy", self.train_accuracy, on_step=False, on_epoch=True, batch_size=size
            )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin with no scores: an epoch before may have been interrupted."""
        self._collector = ScoreCollector()

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch; the metrics are computed from the table at the end of the epoch."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch; the metrics are computed from the table at the end of the epoch."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Give the scores, shape ``(B,)``; labels are not looked at.

        Raises:
            ConfigError: If the head does not classify.
        """
        score = self._evaluate(batch, "predict")
        if score is None:
            raise ConfigError(
                "this autoencoder was trained without labels (classify_weight 0), so it gives no "
                "scores; for its codes use `dfl encode`"
            )
        return score

    def on_validation_epoch_end(self) -> None:
        """Log what the validation scores amount to."""
        self._finish_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log what the test scores amount to, also per dataset and generator."""
        self._finish_epoch("test")

    def on_predict_epoch_end(self) -> None:
        """Gather the scores of all processes."""
        self._finish_epoch("predict")

    # Scores

    def _evaluate(self, batch: Batch, split: str) -> Tensor | None:
        label = None if split == "predict" else batch["label"]
        with self._arithmetic():
            step = self.step(batch, label)
        score = None if step["logit"] is None else step["logit"] - self.threshold
        columns = {"loss": step["loss"], "score": score, **step["logs"]}
        self._collector.add(batch, split, {k: v for k, v in columns.items() if v is not None})
        return score

    def _arithmetic(self) -> AbstractContextManager[object]:
        """Give the context of the precision that was asked for; else the trainer has its own."""
        if self._precision is None:
            return nullcontext()
        return autocast(self._precision, self.device.type)

    def _finish_epoch(self, split: str) -> None:
        table = self._collector.gather()
        self.scores = table[list(SCORE_COLUMNS)] if "score" in table else _no_scores()
        if split != "predict" and not self.trainer.sanity_checking:
            # every process holds the whole table, so there is nothing left to synchronise
            for name, value in epoch_metrics(table, split).items():
                self.log(name, value, prog_bar=name in _SHOWN)

    # Checkpoints say what they hold

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Say what the weights belong to."""
        checkpoint[CHECKPOINT_KEY] = self.description().dump()

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Take over the threshold; refuse a checkpoint of another task or another architecture.

        Raises:
            CheckpointError: If it does not fit; says in what.
        """
        saved = HeadDescription.load(checkpoint)
        if saved.task != self.class_path or saved.architecture != self.architecture():
            raise CheckpointError(
                f"the checkpoint holds {saved.task} {saved.architecture}, this model is "
                f"{self.class_path} {self.architecture()}; use the config it was trained with"
            )
        # a fit that goes on changes the weights, so that the old threshold no longer holds
        if self._trainer is None or self.trainer.state.fn != "fit":
            self.threshold = saved.threshold

    @property
    def class_path(self) -> str:
        """The name under which a checkpoint of this task is known."""
        return public_name(type(self))

    def origin_of(self, backbones: Plain) -> FeatureOrigin:
        """Say how this trainer sees images.

        Args:
            backbones: How to build the backbones.
        """
        data = self.data
        preprocess: Plain = data.preprocess() if hasattr(data, "preprocess") else None
        if self._trainer is None:
            return FeatureOrigin(backbones, preprocess)
        run: Recipe = {"precision": str(self.trainer.precision), "engine": "eager"}
        return FeatureOrigin(backbones, preprocess, run)

    @property
    def data(self) -> object:
        """The data module, None outside a trainer."""
        return None if self._trainer is None else getattr(self._trainer, "datamodule", None)


def _check_keeps_weights(precision: str) -> None:
    if precision in _HALF_WEIGHTS:
        raise ConfigError(
            f"precision: {precision} would round the trained weights to 16 bit; take bf16-mixed or "
            "16-mixed, which compute in 16 bit and keep the weights"
        )


def _no_scores() -> pd.DataFrame:
    return pd.DataFrame(columns=list(SCORE_COLUMNS))
