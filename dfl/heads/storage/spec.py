"""Whether two sets of features are the same, and if not, where they differ."""

from dfl.types import FeatureSpec

__all__ = ["spec_difference"]


def spec_difference(
    expected: FeatureSpec, found: FeatureSpec, *, subset: bool = False
) -> str | None:
    """Say where two feature specifications differ first.

    Args:
        expected: What something was trained on.
        found: What it is to be applied to.
        subset: Whether `found` may have further layers and another order, because the expected
            layers are then picked by name.

    Returns:
        A phrase that names the layer, or None where they agree.
    """
    for layer in expected:
        same = next((other for other in found if other.name == layer.name), None)
        if same is None:
            return f"layer {layer.name!r} is missing (there: {_names(found)})"
        if same.fingerprint != layer.fingerprint:
            return (
                f"layer {layer.name!r} has the fingerprint {same.fingerprint[:8]}, "
                f"not {layer.fingerprint[:8]}"
            )
        if same.dim != layer.dim:
            return f"layer {layer.name!r} has {same.dim} columns, not {layer.dim}"
    if not subset and expected != found:
        return f"it takes {_names(expected)} in this order, not {_names(found)}"
    return None


def _names(spec: FeatureSpec) -> str:
    return ", ".join(layer.name for layer in spec) or "none"
