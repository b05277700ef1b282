"""The three kinds of image tower that open_clip builds, each run once for all layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn

from dfl.backbones.layers import LayerMenu, LayerPlan, block_features
from dfl.backbones.trunk import timm_menu, timm_pass
from dfl.errors import BackboneError


class Tower(nn.Module, ABC):
    """An image tower that can say what it offers and give it.

    Attributes:
        menu: The layers it offers.
        visual: open_clip's own tower.
    """

    def __init__(self, visual: nn.Module, menu: LayerMenu) -> None:
        super().__init__()
        self.visual = visual
        self.menu = menu

    @abstractmethod
    def encode(self, image: Tensor, plan: LayerPlan) -> dict[str, Tensor]:
        """Run the tower once.

        Args:
            image: Normalised, ``(B, 3, H, W)``.
            plan: What to keep.

        Returns:
            ``(B, D)`` by layer: the blocks', and ``pooled`` and ``head`` where they are asked for.
        """

    def _intermediates(
        self, image: Tensor, plan: LayerPlan, *, last: int, has_prefix: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Run open_clip's own pass: the tower's output, if needed, and the blocks' features."""
        # a ResNet tower stops at the last index unless it is told of its very last stage
        indices = sorted({*plan.blocks, last}) if plan.has_final else list(plan.blocks)
        forward = cast("Callable[..., dict[str, object]]", self.visual.forward_intermediates)
        output = forward(
            image,
            indices=indices,
            stop_early=not plan.has_final,
            intermediates_only=not plan.has_final,
            output_fmt="NCHW",
            output_extra_tokens=has_prefix,
        )
        maps = cast(Sequence[Tensor], output["image_intermediates"])
        prefixes = cast(Sequence[Tensor] | None, output.get("image_intermediates_prefix"))
        # `last` is the highest index, so whatever was added for it stands at the end
        features = block_features(plan, maps, prefixes)
        return cast(Tensor | None, output.get("image_features")), features


class _TransformerTower(Tower):
    """open_clip's own vision transformer, with the projection taken out of it."""

    def __init__(self, model: str, visual: nn.Module) -> None:
        self._blocks = len(cast(nn.ModuleList, cast(nn.Module, visual.transformer).resblocks))
        projection = cast(nn.Parameter | None, visual.proj)
        menu = LayerMenu(
            model=model,
            block_count=self._blocks,
            has_cls=True,
            has_pooled=True,
            has_head=projection is not None,
        )
        visual.register_parameter("proj", None)  # open_clip then gives the vector before it
        super().__init__(visual, menu)
        self.projection = projection

    def encode(self, image: Tensor, plan: LayerPlan) -> dict[str, Tensor]:
        """Run the tower once."""
        last = self._blocks - 1
        pooled, features = self._intermediates(image, plan, last=last, has_prefix=True)
        if pooled is not None:
            features["pooled"] = pooled
            if self.projection is not None:
                features["head"] = pooled @ self.projection
        return features


class _ResNetTower(Tower):
    """OpenAI's ResNet, whose attention pool projects as well."""

    def __init__(self, model: str, visual: nn.Module) -> None:
        menu = LayerMenu(model=model, block_count=5, has_cls=False, has_pooled=False, has_head=True)
        super().__init__(visual, menu)

    def encode(self, image: Tensor, plan: LayerPlan) -> dict[str, Tensor]:
        """Run the tower once."""
        head, features = self._intermediates(image, plan, last=4, has_prefix=False)
        return features if head is None else features | {"head": head}


class _TimmTower(Tower):
    """A timm network with open_clip's projection, if it has one, on top."""

    def __init__(self, model: str, visual: nn.Module) -> None:
        self._on_top = len(cast(nn.Sequential, visual.head)) > 0
        trunk = cast(nn.Module, visual.trunk)
        inner = timm_menu(model, trunk)
        menu = LayerMenu(
            model=model,
            block_count=inner.block_count,
            has_cls=inner.has_cls,
            has_pooled=True,
            has_head=inner.has_head or self._on_top,
        )
        super().__init__(visual, menu)

    def encode(self, image: Tensor, plan: LayerPlan) -> dict[str, Tensor]:
        """Run the trunk once, and what open_clip puts on top of it."""
        head = cast(nn.Module, self.visual.head)
        features = timm_pass(cast(nn.Module, self.visual.trunk), plan, image)
        if "head" in features:
            features["head"] = head(features["head"])
        return features


def tower_of(model: str, visual: nn.Module) -> Tower:
    """Wrap an image tower by its kind.

    Args:
        model: The model's name, for messages.
        visual: open_clip's tower; a vision transformer's projection is moved out of it.

    Returns:
        The tower.

    Raises:
        BackboneError: If it is of a kind that is not known here.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, VisionTransformer):
        return _TransformerTower(model, visual)
    if isinstance(visual, ModifiedResNet):
        return _ResNetTower(model, visual)
    if isinstance(visual, TimmModel):
        return _TimmTower(model, visual)
    raise BackboneError(
        f"{model}: a tower of kind {type(visual).__name__} is not known; take another"
    )
