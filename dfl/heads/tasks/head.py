"""What heads on frozen features share: pixels or the store as their source, small checkpoints."""

from abc import abstractmethod
from typing import Final, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from dfl.backbones import Backbone, FusedBackbone
from dfl.backbones.precision import SettledPrecision
from dfl.errors import ConfigError
from dfl.heads.modules.losses import cross_entropy
from dfl.heads.modules.standardise import Standardise
from dfl.heads.storage.checkpoint import HeadDescription, check_spec, check_state
from dfl.heads.tasks.scoring import ScoringTask, Step
from dfl.recipe import describe
from dfl.types import Batch, FeatureSource, FeatureSpec

BACKBONE_PREFIX: Final = "backbone."
"""How the names of the backbones' tensors begin in the state of a task."""


class HeadTask(ScoringTask):
    """Train a head on frozen features, and test it per dataset and generator.

    A batch holds either images, which go through the backbones, or features, which skip them; so
    the same task trains from pixels and from a feature folder. The head is built when the features'
    size is known.

    Args:
        backbones: Frozen backbones by name, whose features are concatenated; none where the data
            module yields features.
        optimizer: Makes the optimizer from the head's parameters; needed for fit only.
        lr_scheduler: Makes the scheduler from the optimizer, stepped once an epoch.

    Attributes:
        scores: The score table of the last validation, test or predict epoch, over all processes,
            in the manifest's order; empty where the head does not classify.
    """

    def __init__(
        self,
        backbones: dict[str, Backbone] | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        self.backbone = FusedBackbone(backbones) if backbones else None
        self.spec: FeatureSpec | None = self.backbone.spec if self.backbone else None

    # What a head is

    @abstractmethod
    def build_model(self, in_features: int) -> nn.Module:
        """Build what is trained, for features of shape ``(B, in_features)``."""

    def head_step(self, features: Tensor, label: Tensor | None) -> Step:
        """Score features of shape ``(B, D)``; where labels ``(B,)`` are given, compute the loss.

        Unless a head says otherwise, its model gives logits and the loss is their cross-entropy.
        """
        logit = cast(nn.Module, self.model)(features)
        loss = None if label is None else cross_entropy(logit, label)
        return {"loss": loss, "logit": logit, "logs": {}}

    def run_in(self, precision: SettledPrecision) -> None:
        """Score images in a precision from now on, to which the frozen backbones are cast.

        Args:
            precision: What the head computes stays in float32.

        Raises:
            BackboneError: If a backbone was cast to another precision before.
        """
        if self.backbone is not None:
            self.backbone.cast_networks(precision)
        self._precision = precision

    def is_frozen(self, key: str) -> bool:
        """Say whether a tensor of the task's state is a frozen one, which no checkpoint holds."""
        return key.startswith(BACKBONE_PREFIX)

    # Lightning's hooks

    def configure_model(self) -> None:
        """Build the head once the size of the features is known."""
        if self.model is not None:
            return
        if self.spec is None and self._trainer is None:
            return  # `load_from_checkpoint` asks too early: the checkpoint will say
        if self.spec is None:
            data = self.data
            if not isinstance(data, FeatureSource):
                raise ConfigError(
                    "the model has no backbones and the data module yields images; "
                    "give model.backbones, or use dfl.features.FeatureDataModule"
                )
            self.spec = data.feature_spec
        self.model = self.build_model(sum(layer.dim for layer in self.spec))

    def setup(self, stage: str) -> None:
        """Check the precision, and that features from a store are those of this model.

        Raises:
            ConfigError: If weights were to be cast to 16 bit.
            CheckpointError: If the features are other ones.
        """
        super().setup(stage)
        data = self.data
        if isinstance(data, FeatureSource) and self.spec is not None:
            check_spec(
                self.spec, data.feature_spec, saved_by="this model", present_in="the feature folder"
            )

    def on_train_epoch_end(self) -> None:
        """Keep the statistics of the first pass: later passes see the same images."""
        for module in self.modules():
            if isinstance(module, Standardise):
                module.freeze()

    # Features and scores

    def features(self, batch: Batch) -> Tensor:
        """Take a batch's features, or make them from its images; shape ``(B, D)``."""
        if "features" in batch:
            return batch["features"]
        if self.backbone is None:
            raise ConfigError("the batch holds images but the model has no backbones; give some")
        features: Tensor = self.backbone.features(batch["image"])
        return features

    def step(self, batch: Batch, label: Tensor | None) -> Step:
        """Score a batch by its features; where labels ``(B,)`` are given, compute the loss."""
        features = self.features(batch)
        # autocast is for the backbones: in 16 bit, scores of different images become equal
        with torch.autocast(features.device.type, enabled=False):
            return self.head_step(features.float(), label)

    # Checkpoints hold the trained part and say what it stands on

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Leave the frozen weights out, and say which they were."""
        state = cast(dict[str, Tensor], checkpoint["state_dict"])
        for key in filter(self.is_frozen, list(state)):
            del state[key]
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Refuse a checkpoint of another backbone or another head; else restore the trained part.

        Raises:
            CheckpointError: If it does not fit; says in what.
        """
        super().on_load_checkpoint(checkpoint)
        saved = HeadDescription.load(checkpoint)
        if self.spec is not None:
            check_spec(
                saved.features, self.spec, saved_by="the checkpoint", present_in="this model"
            )
        self.spec = saved.features
        self.configure_model()
        # Lightning loads strictly: what was left out is put back from this model
        state = cast(dict[str, Tensor], checkpoint["state_dict"])
        own = self.state_dict()
        state.update({key: own[key] for key in own if self.is_frozen(key)})
        check_state(state, own)

    def description(self) -> HeadDescription:
        """Say which backbones the head stands on, and how it sees images."""
        data = self.data
        if isinstance(data, FeatureSource):
            origin = data.feature_origin
        else:
            backbones = dict(self.backbone.backbones.items()) if self.backbone else None
            origin = self.origin_of(describe(backbones))
        return HeadDescription(self.class_path, self.architecture(), self.spec or (), origin)
