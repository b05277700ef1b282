"""Layers as blocks that weigh alike, and what a block of a network adds to the one before it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from dfl.errors import HeadError
from dfl.types import FeatureSpec

Features = npt.NDArray[np.number]
Differences = Literal["none", "added", "alone"]

_BLOCK: Final = re.compile(r"block(\d+)\.(\w+)")
_WHOLE: Final = -1  # no layer is taken away


@dataclass(eq=False, repr=False)
class BlockScaler(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Standardise columns, and let every layer weigh alike, however wide it is.

    Every column gets mean 0 and variance 1, divided by the root of its layer's width over the mean
    width: distances and penalties are then shared out by layers, not by columns; of layers of one
    width this is plain scaling.

    The difference of neighbouring blocks, ``x[block k+1] - x[block k]`` of one backbone and one
    kind (``cls`` or ``mean``), is what the blocks between them have written, since a transformer's
    blocks add to what they are given. So it is taken of the features as they come, and is then
    standardised as a layer of its own. Neighbours are those among the layers at hand.

    Args:
        differences: ``none``: the layers; ``added``: the layers and then the differences;
            ``alone``: differences, and the layers that are part of none.

    Attributes:
        pieces_: What the columns are made of, a row a layer or difference: first column, first
            column of what is taken away (or -1), width; shape ``(P, 3)``.
        mean_: Of the columns, shape ``(sum of widths,)``.
        scale_: What they are divided by, of the same shape.
        n_features_in_: D.
    """

    differences: Differences = "none"

    def fit(
        self,
        X: Features,  # noqa: N803  # sklearn's name
        y: npt.ArrayLike | None = None,
        spec: FeatureSpec = (),
    ) -> Self:
        """Take the statistics of the columns.

        Args:
            X: Features, shape ``(N, D)``.
            y: Ignored.
            spec: Which layers the columns are.

        Raises:
            HeadError: If the layers are not those of the columns, or have no difference.
        """
        return self.fit_blocks([validate_data(self, X, dtype="numeric")], spec)

    def fit_blocks(self, blocks: Iterable[Features], spec: FeatureSpec) -> Self:
        """Fit on rows that come in blocks; otherwise as `fit`."""
        if self.differences not in ("none", "added", "alone"):
            raise HeadError(f"differences is {self.differences!r}: choose none, added or alone")
        pieces = np.array(list(_pieces(spec, self.differences)), dtype=np.int64).reshape(-1, 3)
        dim = sum(layer.dim for layer in spec)
        scaler = StandardScaler()
        for rows in blocks:
            if rows.shape[1] != dim:
                raise HeadError(
                    f"features of {rows.shape[1]} columns, and layers of {dim}: BlockScaler stands "
                    "before all other steps, and fit needs the spec of the features"
                )
            scaler.partial_fit(_taken(rows, pieces))
        width = pieces[:, 2]
        self.pieces_, self.mean_ = pieces, scaler.mean_
        self.scale_ = scaler.scale_ * np.repeat(np.sqrt(width / width.mean()), width)
        self.n_features_in_ = dim
        return self

    def transform(self, X: Features) -> Features:  # noqa: N803  # sklearn's name
        """Scale features of shape ``(N, D)``; shape ``(N, sum of widths)``, float32 if X is."""
        check_is_fitted(self)
        features = validate_data(self, X, dtype="numeric", reset=False)
        scaled = (_taken(features, self.pieces_) - self.mean_) / self.scale_
        kind = np.float32 if features.dtype == np.float32 else np.float64
        return np.asarray(scaled, dtype=kind)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32", "float64"]
        return tags


def _taken(rows: Features, pieces: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Put the columns together, in float64: a difference of like values loses digits."""
    columns = []
    for start, other, width in pieces:
        own = rows[:, start : start + width].astype(np.float64)
        columns.append(own if other == _WHOLE else own - rows[:, other : other + width])
    return np.hstack(columns)


def _pieces(spec: FeatureSpec, differences: Differences) -> Iterator[tuple[int, int, int]]:
    start = 0
    whole: dict[str, tuple[int, int, int]] = {}
    rows: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for layer in spec:
        whole[layer.name] = (start, _WHOLE, layer.dim)
        start += layer.dim
        if match := _BLOCK.fullmatch(layer.layer):
            rows.setdefault((layer.backbone, match[2]), []).append((int(match[1]), layer.name))
    neighbours = [
        (before, after)
        for each in rows.values()
        for (_, before), (_, after) in pairwise(sorted(each))
    ]
    if differences != "none":
        _check(neighbours, whole)
    paired = {name for pair in neighbours for name in pair}
    yield from (
        piece for name, piece in whole.items() if differences != "alone" or name not in paired
    )
    if differences != "none":
        yield from ((whole[b][0], whole[a][0], whole[b][2]) for a, b in neighbours)


def _check(neighbours: list[tuple[str, str]], whole: dict[str, tuple[int, int, int]]) -> None:
    if not neighbours:
        raise HeadError(
            f"no two blocks of one backbone and kind among {', '.join(whole) or 'no layers'}; "
            "choose layers such as clip.block5.cls and clip.block7.cls, or differences none"
        )
    if odd := [f"{a} and {b}" for a, b in neighbours if whole[a][2] != whole[b][2]]:
        raise HeadError(
            f"{', '.join(odd)} differ in width, so they have no difference; choose blocks of one "
            "width, or differences none"
        )
