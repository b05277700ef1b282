"""Which of the backbones that made a feature folder a choice of its layers needs."""

from dfl.recipe import Plain, Recipe
from dfl.types import FeatureSpec

__all__ = ["backbones_of"]


def backbones_of(spec: FeatureSpec, backbones: Plain) -> Plain:
    """Keep of the backbones that made a feature folder those, and the layers, that are used.

    Args:
        spec: The layers that are used.
        backbones: The descriptions of all backbones by name, as the folder has them.

    Returns:
        Descriptions of backbones that make `spec`, or None where that is not known.
    """
    if not isinstance(backbones, dict):
        return None
    layers: dict[str, list[Plain]] = {}
    for layer in spec:
        layers.setdefault(layer.backbone, []).append(layer.layer)
    kept: Recipe = {}
    for name, used in layers.items():
        recipe = backbones.get(name)
        arguments = recipe.get("init_args") if isinstance(recipe, dict) else None
        if not isinstance(recipe, dict) or not isinstance(arguments, dict):
            return None
        kept[name] = recipe | {"init_args": arguments | {"layers": used}}
    return kept
