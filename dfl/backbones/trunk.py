"""Run a timm network once and take the planned layers from that pass."""

import inspect
from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn

from dfl.backbones.layers import LayerMenu, LayerPlan, block_features

Blocks = Sequence[Tensor] | Sequence[tuple[Tensor, Tensor]]


def timm_menu(model: str, network: nn.Module) -> LayerMenu:
    """List what a timm network offers.

    Args:
        model: Its name, for messages.
        network: The network.

    Returns:
        The menu; ``head`` is on it if the network has classes or a projection.
    """
    has_blocks = hasattr(network, "forward_intermediates")
    return LayerMenu(
        model=model,
        block_count=len(cast(list[object], network.feature_info)) if has_blocks else 0,
        has_cls=_has_prefix(network) and getattr(network, "cls_token", None) is not None,
        has_pooled=True,
        has_head=bool(getattr(network, "num_classes", 0)),
    )


def timm_pass(network: nn.Module, plan: LayerPlan, image: Tensor) -> dict[str, Tensor]:
    """Run the network once, no further than the last layer asked for.

    Args:
        network: A timm network.
        plan: What to keep.
        image: Normalised, ``(B, 3, H, W)``.

    Returns:
        ``(B, D)`` by layer: the blocks', ``pooled`` and ``head``.
    """
    final: Tensor | None = None
    features: dict[str, Tensor] = {}
    if plan.blocks:
        final, features = _blocks(network, plan, image)
    elif plan.has_final:
        final = _method(network, "forward_features")(image)
    # the head is run twice if both are asked for; the trunk, which costs, once
    if "pooled" in plan.layers:
        features["pooled"] = _method(network, "forward_head")(final, pre_logits=True)
    if "head" in plan.layers:
        features["head"] = _method(network, "forward_head")(final)
    return features


def _blocks(
    network: nn.Module, plan: LayerPlan, image: Tensor
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Give the trunk's last output, if it is needed, and the blocks' features."""
    has_prefix = _has_prefix(network)
    forward = cast("Callable[..., object]", getattr(network, "forward_intermediates"))  # noqa: B009
    output = forward(
        image,
        indices=list(plan.blocks),
        norm=False,
        output_fmt="NCHW",
        stop_early=not plan.has_final,
        intermediates_only=not plan.has_final,
        **({"return_prefix_tokens": True} if has_prefix else {}),
    )
    final, taken = cast(tuple[Tensor, Blocks], output) if plan.has_final else (None, output)
    if has_prefix:
        pairs = cast(Sequence[tuple[Tensor, Tensor]], taken)
        return final, block_features(plan, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return final, block_features(plan, cast(Sequence[Tensor], taken), None)


def _has_prefix(network: nn.Module) -> bool:
    """Tell whether the blocks' outputs carry tokens that are not patches."""
    method = getattr(network, "forward_intermediates", None)
    if method is None or not getattr(network, "num_prefix_tokens", 0):
        return False
    return "return_prefix_tokens" in inspect.signature(method).parameters


def _method(network: nn.Module, name: str) -> Callable[..., Tensor]:
    """Give a method of the network."""
    return cast("Callable[..., Tensor]", getattr(network, name))
