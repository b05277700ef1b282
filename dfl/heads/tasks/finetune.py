"""Fine-tuning a whole network on images, as a Lightning task: the baseline of frozen features."""

from pathlib import Path
from typing import cast

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from dfl.errors import ConfigError
from dfl.files import checksum_of
from dfl.heads.modules.image_classifier import ImageClassifier, check_source
from dfl.heads.modules.losses import cross_entropy
from dfl.heads.storage.checkpoint import HeadDescription, check_state
from dfl.heads.tasks.scoring import ScoringTask, Step
from dfl.recipe import Recipe
from dfl.types import Batch, FeatureSource


class FineTuneTask(ScoringTask):
    """Train any timm model end to end to tell fake from real, by binary cross-entropy.

    With ResNet-50, ImageNet's weights, Adam at 1e-4, and blur and JPEG as augmentation this is
    CNNDetection (Wang et al., CVPR 2020). A checkpoint holds the whole network.

    Args:
        model: timm's name, for example ``resnet50.tv_in1k``.
        weights: A local file to start from in place of the hub's, in any layout that
            ``dfl.backbones.TimmBackbone`` reads. Its classifier is dropped; the rest must fit.
        pretrained: Start from the weights that belong to the name. False has to be said to start
            from random ones, and contradicts ``weights``. A checkpoint brings its own weights.
        input_size: Side of the square input in pixels, to which other images are resized; None is
            the model's own.
        optimizer: Makes the optimizer from the network's parameters; needed for fit only.
        lr_scheduler: Makes the scheduler from the optimizer, stepped once an epoch.

    Raises:
        BackboneError: If timm has no such model.
        ConfigError: If a file and random weights are asked for at once.
    """

    def __init__(
        self,
        model: str = "resnet50",
        weights: Path | None = None,
        pretrained: bool = True,
        input_size: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        check_source(model, weights, pretrained)
        self.model_name = model
        self.weights = weights
        self.pretrained = pretrained
        self.input_size = input_size

    def architecture(self) -> Recipe:
        """Give the model's name and its input size."""
        return {"model": self.model_name, "input_size": self.input_size}

    def beginning(self) -> Recipe:
        """Say what a training begins with, the optimizer apart."""
        return {
            "architecture": self.architecture(),
            "weights": None if self.weights is None else checksum_of(self.weights),
            "pretrained": self.pretrained,
        }

    def untrained(self, *, pretrained: bool | None = None) -> "FineTuneTask":
        """Make another task of the same arguments, which has learnt nothing.

        Args:
            pretrained: False builds it without a file and without the hub, for where a checkpoint
                brings the weights; None keeps this task's own choice.
        """
        keep = pretrained is None
        return FineTuneTask(
            self.model_name,
            weights=self.weights if keep else None,
            pretrained=self.pretrained if pretrained is None else pretrained,
            input_size=self.input_size,
            optimizer=self.optimizer,
            lr_scheduler=self.lr_scheduler,
        )

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        """Check that there are images.

        Raises:
            ConfigError: If the data module yields features, or weights were to be cast to 16 bit.
        """
        super().setup(stage)
        if isinstance(self.data, FeatureSource):
            raise ConfigError(_NO_IMAGES)

    def configure_model(self) -> None:
        """Build the network for a fit; in other runs a checkpoint brings it."""
        fitting = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if self.model is None and fitting:
            self.model = self._build(self.weights, self.pretrained)

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Refuse a checkpoint of another model; else make room for its weights.

        Raises:
            CheckpointError: If it does not fit; says in what.
        """
        super().on_load_checkpoint(checkpoint)
        if self.model is None:
            self.model = self._build(None, False)
        check_state(cast(dict[str, Tensor], checkpoint["state_dict"]), self.state_dict())

    # Scores

    def step(self, batch: Batch, label: Tensor | None) -> Step:
        """Score a batch's images; where labels ``(B,)`` are given, compute the cross-entropy."""
        if "image" not in batch:
            raise ConfigError(_NO_IMAGES)
        if self.model is None:
            raise ConfigError(
                f"{self.model_name} has not been fine-tuned yet; fit it, or give the checkpoint "
                "of a run: ckpt_path"
            )
        try:
            logit: Tensor = self.model(batch["image"])
        except ValueError as err:
            if "more than 1 value per channel" not in str(err):
                raise
            raise ConfigError(
                "a batch of one image of this input size is too little for "
                f"{self.model_name}'s BatchNorm; take another data.batch_size, which leaves no "
                "single image over, or a larger input_size"
            ) from err
        loss = None if label is None else cross_entropy(logit, label)
        return {"loss": loss, "logit": logit, "logs": {}}

    def description(self) -> HeadDescription:
        """Say what the model is, and how it sees images; it stands on no features."""
        return HeadDescription(self.class_path, self.architecture(), (), self.origin_of({}))

    def _build(self, weights: Path | None, pretrained: bool) -> ImageClassifier:
        return ImageClassifier(
            self.model_name, weights=weights, pretrained=pretrained, input_size=self.input_size
        )


_NO_IMAGES = (
    "FineTuneTask trains on images and the data module yields features; use a data module of "
    "images such as dfl.data.ImageDataModule, or dfl.heads.LinearProbeTask on features"
)
