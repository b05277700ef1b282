"""The vocabulary every room shares: labels, the typed batch, the identity of features."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NotRequired, Protocol, TypedDict, runtime_checkable

if TYPE_CHECKING:  # the sklearn side shares these types and loads without torch
    from torch import Tensor

from dfl.recipe import Plain

__all__ = [
    "FAKE",
    "PADDING",
    "REAL",
    "UNKNOWN",
    "Batch",
    "FeatureLayer",
    "FeatureSource",
    "FeatureSpec",
    "Sample",
    "backbone_of",
]

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


class Batch(TypedDict):
    """The one thing that data modules and tasks both know; it holds ``image`` or ``features``."""

    image: NotRequired["Tensor"]  # uint8, (B, 3, H, W) or (B, V, 3, H, W)
    features: NotRequired["Tensor"]  # float32, (B, D)
    label: "Tensor"  # int64, (B,)
    path: list[str]
    dataset: list[str]
    generator: list[str]
    index: "Tensor"  # int64, (B,)


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


FeatureSpec = tuple[FeatureLayer, ...]
"""The layers of a feature vector in the order in which they are concatenated."""


@runtime_checkable
class FeatureSource(Protocol):
    """A data module whose batches hold ``features``."""

    @property
    def feature_spec(self) -> FeatureSpec:
        """What the columns of ``features`` are."""

    @property
    def feature_origin(self) -> "tuple[Plain, Plain]":
        """How to make them again: the descriptions of the backbones and of the preprocessing."""
