"""Tuning a backbone a little as a Lightning task: LayerNorms or low-rank adapters, and a head."""

import logging
from collections.abc import Iterable
from typing import Any, Final, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import normalize

from dfl.backbones import Backbone, FusedBackbone
from dfl.errors import ConfigError
from dfl.heads.modules.losses import alignment, cross_entropy, disagreement, uniformity
from dfl.heads.modules.tuning import Trainable, tune
from dfl.heads.tasks.head import BACKBONE_PREFIX, HeadTask
from dfl.heads.tasks.scoring import Step
from dfl.recipe import Recipe, build, describe
from dfl.types import Batch, FeatureSource

logger = logging.getLogger(__name__)

_WEIGHTS: Final = ("alignment", "uniformity", "consistency", "feature_consistency")
_VIEWS: Final = 2


class TuneTask(HeadTask):
    """Train a few tensors of a backbone and a linear layer on its features, on images.

    All else stays frozen: in eval mode, without gradient. A checkpoint holds what was trained and
    the name and fingerprint of the backbone that it belongs to; `dfl.heads.TunedBackbone` makes a
    backbone of both, for `dfl extract`.

    The loss is binary cross-entropy plus the terms below, each times its weight. Those terms are of
    training alone, over the images that all processes have in a step together; ``val/loss`` is the
    cross-entropy.

    Args:
        backbones: One backbone by its name. Blocks behind the last layer that it is asked for do
            not run.
        trainable: ``layernorm`` trains scale and shift of LayerNorms (GenD: Yermakov et al., WACV
            2026); ``lora`` trains adapters of the attentions' projections (Hu et al., ICLR 2022),
            for which the extra ``lora`` is needed.
        blocks: Train only what lies in the first so many blocks and before them; by default all
            that the layers depend on.
        rank: Rank of the adapters.
        normalise: Whether features are brought to length 1 before the linear layer.
        alignment: Weight of the mean squared distance of images of one class (Wang and Isola, ICML
            2020); GenD takes 0.1.
        uniformity: Weight of how unevenly images lie on the sphere (the same); GenD takes 0.5.
        consistency: Weight of the divergence, in both directions, between what is said of a clean
            and of a degraded view of an image (DCPT: Yang et al., arXiv:2604.10102). Needs
            `dfl.data.WithDegraded` as the last of the data module's ``train_transforms``.
        feature_consistency: Weight of the squared distance of the two views' features; the same.
        optimizer: Makes the optimizer from the parameters that are trained; needed for fit only.
        lr_scheduler: Makes the scheduler from the optimizer, stepped once an epoch.

    Raises:
        ConfigError: If there is not one backbone, or a weight cannot be used.
    """

    def __init__(
        self,
        backbones: dict[str, Backbone],
        trainable: Trainable = "layernorm",
        blocks: int | None = None,
        rank: int = 8,
        normalise: bool = True,
        alignment: float = 0.0,
        uniformity: float = 0.0,
        consistency: float = 0.0,
        feature_consistency: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(backbones, optimizer, lr_scheduler)
        if len(backbones) != 1:
            raise ConfigError(f"backbones: one is tuned at a time, got {list(backbones)}")
        self.trainable, self.blocks, self.rank = trainable, blocks, rank
        self.normalise = normalise
        given = (alignment, uniformity, consistency, feature_consistency)
        self.weights = dict(zip(_WEIGHTS, given, strict=True))
        for name, weight in self.weights.items():
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"{name}: a weight is a number of at least 0, got {weight}")
            if weight and not normalise and name in ("alignment", "uniformity"):
                raise ConfigError(
                    f"{name}: is of points on a sphere, and normalise: false leaves the features "
                    "where they are; take 0, or normalise: true"
                )
        (self._name,) = backbones
        self._tuned: frozenset[str] = frozenset()

    # What is trained

    def architecture(self) -> Recipe:
        """Give what is trained and how features meet the linear layer."""
        given: Recipe = {"trainable": self.trainable, "blocks": self.blocks}
        rank: Recipe = {"rank": self.rank} if self.trainable == "lora" else {}
        return given | rank | {"normalise": self.normalise}

    def beginning(self) -> Recipe:
        """Say what a training begins with and makes small, the optimizer apart."""
        return {
            "architecture": self.architecture(),
            "backbone": [layer.fingerprint for layer in self.spec or ()],
            "losses": describe(self.weights),
        }

    def untrained(self, *, pretrained: bool | None = None) -> "TuneTask":
        """Make another task of the same arguments, which has learnt nothing.

        Args:
            pretrained: Of no account: a checkpoint does not bring the frozen weights.
        """
        recipe = describe({self._name: self._one})
        arguments: dict[str, Any] = {**self.architecture(), **self.weights}
        return TuneTask(
            cast(dict[str, Backbone], build(recipe)),
            **arguments,
            optimizer=self.optimizer,
            lr_scheduler=self.lr_scheduler,
        )

    def build_model(self, in_features: int) -> nn.Module:
        """Build the linear layer, which begins at zero."""
        linear = nn.utils.skip_init(nn.Linear, in_features, 1)  # type: ignore[no-untyped-call]
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        return cast(nn.Module, linear)

    def trained(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """List the linear layer's parameters, and the backbone's that are tuned."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def is_frozen(self, key: str) -> bool:
        """Say whether a tensor of the task's state is a frozen one, which no checkpoint holds."""
        name = key.removeprefix(self._prefix)
        return super().is_frozen(key) and name not in self._tuned

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        """Check that there are images.

        Raises:
            ConfigError: If the data module yields features, or weights were to be cast to 16 bit.
        """
        if isinstance(self.data, FeatureSource):
            raise ConfigError(_NO_IMAGES)
        super().setup(stage)

    def configure_model(self) -> None:
        """Build the linear layer, and have the backbone's tensors trained."""
        if self.model is not None:
            return
        super().configure_model()
        self._tuned = tune(self._one, self.trainable, blocks=self.blocks, rank=self.rank)

    def on_fit_start(self) -> None:
        """Say how much is trained."""
        if self.trainer.is_global_zero:
            own = sum(parameter.numel() for parameter in self._one.parameters())
            tuned = sum(p.numel() for p in self._one.parameters() if p.requires_grad)
            logger.info(
                "%s: %s values of the backbone's %s are trained (%s), and a linear layer",
                self._name,
                f"{tuned:,}",
                f"{own:,}",
                self.trainable,
            )

    # Scores

    def step(self, batch: Batch, label: Tensor | None) -> Step:
        """Score a batch's images; in training, add the weighted terms to the cross-entropy."""
        if "image" not in batch:
            raise ConfigError(_NO_IMAGES)
        image = batch["image"]
        compares = self.training and (
            self.weights["consistency"] > 0 or self.weights["feature_consistency"] > 0
        )
        if compares:
            if image.ndim != 5 or image.shape[1] != _VIEWS:
                raise ConfigError(
                    "consistency compares a clean and a degraded view of each image, and the data "
                    "module does not give two; put dfl.data.WithDegraded last in "
                    "data.train_transforms"
                )
            image = image.flatten(0, 1)
        points = self.features({**batch, "image": image})
        # autocast is for the backbone: in 16 bit, scores of different images become equal
        with torch.autocast(points.device.type, enabled=False):
            points = points.float()
            if self.normalise:
                points = normalize(points, dim=1)
            logit = cast(nn.Module, self.model)(points).squeeze(1)
            views = _VIEWS if compares else 1
            shown = logit.reshape(-1, views).mean(1)
            if label is None:
                return {"loss": None, "logit": shown, "logs": {}}
            loss = cross_entropy(logit, label.repeat_interleave(views))
            terms = self._terms(points, logit, label, views) if self.training else {}
            for name, term in terms.items():
                loss = loss + self.weights[name] * term
        return {"loss": loss, "logit": shown, "logs": terms}

    def _terms(self, points: Tensor, logit: Tensor, label: Tensor, views: int) -> dict[str, Tensor]:
        """Compute the terms of the loss that have a weight, each one number."""
        terms: dict[str, Tensor] = {}
        if self.weights["alignment"] or self.weights["uniformity"]:
            together = self._of_all_processes(points)
            if self.weights["alignment"]:
                labels = self._of_all_processes(label.repeat_interleave(views))
                terms["alignment"] = alignment(together, labels)
            if self.weights["uniformity"]:
                terms["uniformity"] = uniformity(together)
        if views == _VIEWS:
            clean, degraded = slice(0, None, views), slice(1, None, views)
            compared = {
                "consistency": disagreement(logit[clean], logit[degraded]).mean(),
                "feature_consistency": (points[clean] - points[degraded]).square().sum(1).mean(),
            }
            terms |= {name: term for name, term in compared.items() if self.weights[name]}
        return terms

    def _of_all_processes(self, values: Tensor) -> Tensor:
        """Join what all processes have of a step, with gradients."""
        if self._trainer is None:
            return values
        joined = self.all_gather(values, sync_grads=values.requires_grad)
        return cast(Tensor, joined).reshape(-1, *values.shape[1:])

    @property
    def _one(self) -> Backbone:
        return cast(Backbone, cast(FusedBackbone, self.backbone).backbones[self._name])

    @property
    def _prefix(self) -> str:
        return f"{BACKBONE_PREFIX}backbones.{self._name}.network."


_NO_IMAGES: Final = (
    "TuneTask trains a backbone, which takes images, and the data module yields features; use a "
    "data module of images such as dfl.data.ImageDataModule, or dfl.heads.LinearProbeTask on "
    "features"
)
