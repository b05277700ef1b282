"""Names for the features a backbone offers, and the plan that gets them out of one forward pass.

Layer names:

- ``pooled``: the vector the model itself passes to its head. For most vision transformers that is
  the CLS token after the final norm, for SigLIP the output of its attention pool, for convolutional
  networks the mean of the last feature map.
- ``head``: what the model's own head makes of it: CLIP's projection, or class logits.
- ``block<i>.cls``: the CLS token as block ``i`` leaves it, counted from 0.
- ``block<i>.mean``: the mean of the patch tokens (of the positions of feature map ``i`` in a
  convolutional network; CLS and register tokens are left out).

Block features are taken before the final norm, as in RINE (Koutlis and Papadopoulos, ECCV 2024):
that norm is fitted to the last block alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dfl.errors import BackboneError

_BLOCK = re.compile(r"block(0|[1-9][0-9]*)\.(cls|mean)")


@dataclass(frozen=True)
class LayerPlan:
    """What one forward pass has to keep.

    Attributes:
        layers: The layers asked for, in that order.
        blocks: The blocks whose output is needed, ascending.
        has_final: Whether ``pooled`` or ``head`` is needed, so that the pass runs to its end.
    """

    layers: tuple[str, ...]
    blocks: tuple[int, ...]
    has_final: bool


@dataclass(frozen=True)
class LayerMenu:
    """The layers a model offers.

    Attributes:
        model: Its name, for error messages.
        block_count: How many blocks or feature maps it can give, 0 if none.
        has_cls: Whether its blocks carry a CLS token.
        has_pooled: Whether the vector before the head can be had.
        has_head: Whether it has a head of its own.
    """

    model: str
    block_count: int
    has_cls: bool
    has_pooled: bool
    has_head: bool

    def plan(self, layers: Sequence[str]) -> LayerPlan:
        """Check layer names against what the model offers.

        Args:
            layers: Names as in the module's docstring, without repeats.

        Returns:
            What the forward pass has to keep.

        Raises:
            BackboneError: If a name is unknown, repeated, or nothing is asked for.
        """
        if not layers:
            raise BackboneError(f"{self.model}: no layers asked for; it offers {self}")
        if repeated := sorted({name for name in layers if list(layers).count(name) > 1}):
            raise BackboneError(
                f"{self.model}: layers {repeated} are asked for twice; list each once"
            )
        blocks = set()
        whole = {"pooled": self.has_pooled, "head": self.has_head}
        for name in layers:
            is_there = whole.get(name, False)
            if match := _BLOCK.fullmatch(name):
                blocks.add(int(match[1]))
                is_there = int(match[1]) < self.block_count and (self.has_cls or match[2] == "mean")
            if not is_there:
                raise BackboneError(f"{self.model} has no layer {name!r}; it offers {self}")
        has_final = "pooled" in layers or "head" in layers
        return LayerPlan(tuple(layers), tuple(sorted(blocks)), has_final)

    def __str__(self) -> str:
        offered = [n for n, has in (("pooled", self.has_pooled), ("head", self.has_head)) if has]
        if not self.block_count:
            return ", ".join(offered)
        offered += ["block<i>.cls"] * self.has_cls + ["block<i>.mean"]
        return f"{', '.join(offered)} with i from 0 to {self.block_count - 1}"


def block_features(
    plan: LayerPlan, maps: Sequence[Tensor], prefixes: Sequence[Tensor] | None
) -> dict[str, Tensor]:
    """Reduce the blocks' outputs to the vectors asked for.

    Args:
        plan: What was asked for.
        maps: For each of ``plan.blocks`` its patch tokens or feature map, ``(B, D, h, w)``.
        prefixes: For each of ``plan.blocks`` its other tokens, CLS first, ``(B, P, D)``; None if
            there are none.

    Returns:
        A vector ``(B, D)`` by layer name.
    """
    features = {}
    for position, block in enumerate(plan.blocks):
        if (name := f"block{block}.mean") in plan.layers:
            # float32 before the mean: bfloat16 loses digits over hundreds of tokens
            features[name] = maps[position].float().mean(dim=(2, 3))
        if (name := f"block{block}.cls") in plan.layers and prefixes is not None:
            features[name] = prefixes[position][:, 0]
    return features
