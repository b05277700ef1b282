"""The autoencoder bottleneck as a Lightning task."""

from typing import cast

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from dfl.backbones import Backbone
from dfl.errors import ConfigError
from dfl.heads.modules.bottleneck import Bottleneck, BottleneckOutput
from dfl.heads.modules.losses import bottleneck_loss
from dfl.heads.settings import BottleneckSettings
from dfl.heads.tasks.head import HeadTask
from dfl.heads.tasks.scoring import Step
from dfl.recipe import Recipe, describe


class BottleneckTask(HeadTask):
    """Train an autoencoder on frozen features; its code is then a feature set like any other.

    The loss is the mean squared error of the standardised features, plus, where their weights are
    positive, the divergence of a variational code and the cross-entropy of a linear classifier on
    the code. Noise is added, and a variational code is drawn, in training only: the losses of
    validation and test are those of clean features and of the code that `dfl encode` gives.

    Args:
        code_dim: Width of the bottleneck.
        hidden_dims: Widths of the encoder's hidden layers, mirrored in the decoder; none for a
            linear autoencoder.
        classify_weight: Weight of the classification loss, at least 0; with 0 labels are not used
            and the task gives no scores.
        tied: Whether the decoder uses the encoder's matrices, transposed (tied weights).
        noise: Standard deviation of the noise that is added to the standardised features, whose
            clean values are to be reconstructed (denoising); 0 for none.
        kl_weight: Weight of the divergence of the code from a standard Gaussian, at least 0
            (variational); about twice the variance of a standardised feature that may be lost. With
            0 an image has one code and not a distribution.
        backbones: Frozen backbones by name; none where the data module yields features.
        optimizer: Makes the optimizer from the head's parameters; needed for fit only.
        lr_scheduler: Makes the scheduler from the optimizer, stepped once an epoch.
    """

    def __init__(
        self,
        code_dim: int = 64,
        hidden_dims: list[int] | None = None,
        classify_weight: float = 0.0,
        tied: bool = False,
        noise: float = 0.0,
        kl_weight: float = 0.0,
        backbones: dict[str, Backbone] | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(backbones, optimizer, lr_scheduler)
        self.settings = BottleneckSettings(
            code_dim=code_dim,
            hidden_dims=[256] if hidden_dims is None else hidden_dims,
            tied=tied,
            noise=noise,
            kl_weight=kl_weight,
            classify_weight=classify_weight,
        )
        if self.settings.problem:
            raise ConfigError(self.settings.problem)

    def build_model(self, in_features: int) -> nn.Module:
        """Build the autoencoder."""
        model = Bottleneck(
            in_features,
            self.settings.hidden_dims,
            self.settings.code_dim,
            tied=self.settings.tied,
            noise=self.settings.noise,
            variational=self.settings.kl_weight > 0,
        )
        # under DDP every parameter that is trained must get a gradient
        model.classifier.requires_grad_(self.settings.classify_weight > 0)
        return model

    def architecture(self) -> Recipe:
        """Give the widths, the kind of autoencoder and the weights of the losses."""
        names = ("code_dim", "hidden_dims", "classify_weight", "tied", "noise", "kl_weight")
        return {name: describe(getattr(self.settings, name)) for name in names}

    def head_step(self, features: Tensor, label: Tensor | None) -> Step:
        """Reconstruct, and classify where the classifier is trained."""
        output: BottleneckOutput = cast(nn.Module, self.model)(features)
        classifies = self.settings.classify_weight > 0
        known = classifies and label is not None
        loss, terms = bottleneck_loss(
            output,
            label,
            kl_weight=self.settings.kl_weight,
            classify_weight=self.settings.classify_weight if known else 0.0,
        )
        return {
            "loss": loss if known or not classifies else None,
            "logit": output.logit if classifies else None,
            "logs": terms,
        }
