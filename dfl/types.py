"""The vocabulary every room shares: labels, the typed batch, the identity of features."""

from dataclasses import asdict, dataclass
from typing import (
    TYPE_CHECKING,
    Final,
    NamedTuple,
    NotRequired,
    Protocol,
    TypedDict,
    cast,
    runtime_checkable,
)

if TYPE_CHECKING:  # the sklearn side shares these types and loads without torch
    from torch import Tensor

from dfl.recipe import Plain

REAL: Final = 0
FAKE: Final = 1
UNKNOWN: Final = -1
"""The label of an image that is only to be scored."""
PADDING: Final = -1
"""The ``index`` of a sample repeated to fill up a process: it enters no metric and no table."""


class Sample(TypedDict):
    """One image as a dataset returns it."""

    image: "Tensor"  # uint8, (3, H, W), or (V, 3, H, W) where V crops of one image are averaged
    label: int  # REAL, FAKE or UNKNOWN
    path: str  # as the manifest has it
    dataset: str
    generator: str
    index: int  # the manifest's row, or PADDING
    damage: str  # what its decoder got over; empty for a sound image


class Batch(TypedDict):
    """The one thing that data modules and tasks both know; it holds ``image`` or ``features``."""

    image: NotRequired["Tensor"]  # uint8, (B, 3, H, W) or (B, V, 3, H, W)
    features: NotRequired["Tensor"]  # float32, (B, D)
    label: "Tensor"  # int64, (B,)
    path: list[str]
    dataset: list[str]
    generator: list[str]
    index: "Tensor"  # int64, (B,)
    damage: NotRequired[list[str]]  # as in Sample, where images were decoded


@dataclass(frozen=True)
class FeatureLayer:
    """One block of columns of a feature matrix: a layer of a backbone, and what made it.

    Attributes:
        name: Where it comes from, ``<backbone>.<layer>``, for example ``clip.pooled``.
        dim: How many columns.
        fingerprint: Hexadecimal hash of the backbone's architecture, weights, preprocessing and
            layer.
    """

    name: str
    dim: int
    fingerprint: str

    @property
    def backbone(self) -> str:
        """The name of the backbone, for example ``clip``."""
        return backbone_of(self.name)

    @property
    def layer(self) -> str:
        """The layer of the backbone, for example ``pooled`` or ``block8.cls``."""
        return self.name.partition(".")[2]


def backbone_of(name: str) -> str:
    """Name the backbone of a feature layer, ``clip`` of ``clip.block8.cls``."""
    return name.partition(".")[0]


class FeatureOrigin(NamedTuple):
    """How to make features again, as what is trained on them keeps it; None for what is not known.

    Attributes:
        backbones: How to build the backbones, by name.
        preprocess: Crop and transforms of the images.
        execution: Precision and engine that the backbones ran in.
    """

    backbones: Plain = None
    preprocess: Plain = None
    execution: Plain = None

    @property
    def precision(self) -> str:
        """The precision that the backbones ran in; ``32-true`` where none was noted."""
        run = self.execution
        return str(run.get("precision", "32-true")) if isinstance(run, dict) else "32-true"


FeatureSpec = tuple[FeatureLayer, ...]
"""The layers of a feature vector in the order in which they are concatenated."""


def spec_to_plain(spec: FeatureSpec) -> list[Plain]:
    """Give a feature specification as plain data, as files keep it."""
    return [dict(asdict(layer)) for layer in spec]


def spec_from_plain(layers: Plain) -> FeatureSpec:
    """Read a feature specification that `spec_to_plain` gave.

    Raises:
        TypeError: If it is none.
    """
    found = cast(list[dict[str, object]], layers)
    return tuple(FeatureLayer(**layer) for layer in found)  # type: ignore[arg-type]


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


@runtime_checkable
class FeatureSource(Protocol):
    """A data module whose batches hold ``features``."""

    @property
    def feature_spec(self) -> FeatureSpec:
        """What the columns of ``features`` are."""

    @property
    def feature_origin(self) -> "FeatureOrigin":
        """How to make them again."""
