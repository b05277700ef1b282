"""The head that weighs blocks as a Lightning task."""

from typing import cast

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from dfl.backbones import Backbone
from dfl.errors import ConfigError
from dfl.heads.modules.losses import rine_loss
from dfl.heads.modules.rine import RINEHead, RINEOutput
from dfl.heads.settings import RINESettings, blocks_of
from dfl.heads.tasks.head import HeadTask
from dfl.heads.tasks.scoring import Step
from dfl.recipe import Recipe, describe


class RINETask(HeadTask):
    """Train a head that learns which blocks tell (RINE, Koutlis and Papadopoulos, ECCV 2024).

    The loss is binary cross-entropy and, in training, a supervised contrast of the images of a
    batch (of each process its own); see `RINEHead` for the network. The losses of validation and
    test are the cross-entropy alone, which does not depend on who is in a batch.

    Args:
        projection_dim: Width of the projections.
        projection_layers: Linear layers in each of the two projections.
        dropout: Share of values that training drops before and between layers, in [0, 1).
        contrast_weight: Weight of the contrast, at least 0; 0 for none.
        backbones: Frozen backbones by name, with at least two layers of one width (such as
            ``block5.cls`` and ``block7.cls``); none where the data module yields features.
        optimizer: Makes the optimizer from the head's parameters; needed for fit only.
        lr_scheduler: Makes the scheduler from the optimizer, stepped once an epoch.
    """

    def __init__(
        self,
        projection_dim: int = 128,
        projection_layers: int = 2,
        dropout: float = 0.5,
        contrast_weight: float = 0.2,
        backbones: dict[str, Backbone] | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(backbones, optimizer, lr_scheduler)
        self.settings = RINESettings(
            projection_dim=projection_dim,
            projection_layers=projection_layers,
            dropout=dropout,
            contrast_weight=contrast_weight,
        )
        if self.settings.problem:
            raise ConfigError(self.settings.problem)

    def build_model(self, in_features: int) -> nn.Module:
        """Build the head for the layers at hand.

        Raises:
            HeadError: If they are less than two, or of several widths.
        """
        blocks = blocks_of(self.spec or ())
        return RINEHead(blocks, in_features // blocks, **self.settings.architecture)

    def architecture(self) -> Recipe:
        """Give the widths and the weight of the loss's second term."""
        names = ("projection_dim", "projection_layers", "dropout", "contrast_weight")
        return {name: describe(getattr(self.settings, name)) for name in names}

    def head_step(self, features: Tensor, label: Tensor | None) -> Step:
        """Score features; the contrast is of a training batch."""
        output: RINEOutput = cast(nn.Module, self.model)(features)
        if label is None:
            return {"loss": None, "logit": output.logit, "logs": {}}
        contrast_weight = self.settings.contrast_weight if self.training else 0.0
        loss, terms = rine_loss(output, label, contrast_weight=contrast_weight)
        return {"loss": loss, "logit": output.logit, "logs": terms}
