"""Rows that do not fit in memory, with their labels, and what one pass over them sums up.

What a Gaussian model needs of a million rows are their means and scatter matrices, and they can be
summed up in one pass: a block's own scatter around its own mean, and what its mean differs from
that of the rows before (Chan, Golub and LeVeque 1979). All sums are float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import StandardScaler

from dfl.errors import HeadError

Matrix = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Blocks = Iterator[tuple[Matrix, Labels]]

CACHED_ROWS: Final = 256
"""Rows whose float64 copy stays in the processor's cache, for passes that compute little."""

_CLASSES: Final = 2


class RowReader(Protocol):
    """A matrix that is read in pieces, as `dfl.features.matrices.FeatureRows`."""

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""

    def blocks(self) -> Iterator[Matrix]:
        """Read all rows in their order, a block ``(n, D)`` at a time."""

    def take(self, positions: npt.NDArray[np.int64]) -> Matrix:
        """Read some rows, in the order asked for."""


@dataclass(frozen=True)
class Moments:
    """Size, mean and scatter of each class; ``REAL`` and ``FAKE`` index them.

    Attributes:
        count: Rows, or the sum of their weights, shape ``(2,)``.
        mean: Shape ``(2, D)``.
        scatter: Sum of the outer products of the rows' differences from their class's mean, shape
            ``(2, D, D)``.
    """

    count: Array
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, blocks: Blocks, dim: int, weight: Array | None = None) -> Self:
        """Sum up the rows of blocks, each with its labels; a weight of 2 is a row that comes twice.

        Args:
            blocks: Rows with their labels.
            dim: D.
            weight: Of the rows in their order, shape ``(N,)``; 1 each by default.
        """
        count = np.zeros(_CLASSES)
        start = 0
        mean, scatter = np.zeros((_CLASSES, dim)), np.zeros((_CLASSES, dim, dim))
        for block, label in gathered(blocks, dim):
            given = None if weight is None else weight[start : start + len(label)]
            start += len(label)
            for side in range(_CLASSES):
                chosen = label == side
                if given is not None:
                    chosen &= given > 0
                rows = block[chosen].astype(np.float64)
                if not len(rows):
                    continue
                each = None if given is None else given[chosen]
                size = float(len(rows)) if each is None else float(each.sum())
                own = rows.mean(axis=0) if each is None else each @ rows / size
                rows -= own
                total = count[side] + size
                delta = own - mean[side]
                scatter[side] += rows.T @ (rows if each is None else rows * each[:, None])
                scatter[side] += np.outer(delta, delta * (count[side] * size / total))
                mean[side] += delta * (size / total)
                count[side] = total
        return cls(count, mean, scatter)

    @property
    def total(self) -> float:
        """How many rows both classes have, or the sum of their weights."""
        return float(self.count.sum())

    @property
    def prior(self) -> Array:
        """Share of each class, shape ``(2,)``."""
        return np.asarray(self.count / self.count.sum())

    def joint_mean(self) -> Array:
        """Mean of all rows, shape ``(D,)``."""
        return np.asarray(self.prior @ self.mean)

    def joint_scatter(self) -> Array:
        """Scatter of all rows around their mean, shape ``(D, D)``."""
        delta = self.mean[1] - self.mean[0]
        between = np.outer(delta, delta) * (self.count[0] * self.count[1] / self.count.sum())
        return np.asarray(self.scatter[0] + self.scatter[1] + between)

    def rescale(self, mean: Array, scale: Array) -> Self:
        """Turn them, in place, into those of the rows less `mean` and divided by `scale`."""
        self.mean[:] = (self.mean - mean) / scale
        np.divide(self.scatter, scale, out=self.scatter)
        np.divide(self.scatter, scale[:, None], out=self.scatter)
        return self


class Stream:
    """Rows with their labels, perhaps scaled; the heads that share it share its passes.

    Args:
        source: The rows.
        label: ``REAL`` or ``FAKE``, shape ``(N,)``.
        scaler: What they are scaled by, fitted.
        weight: How much a row counts for an estimator, shape ``(N,)``, at least 0; 1 each by
            default. Scaling and steps before an estimator take no weights, as in sklearn.
    """

    def __init__(
        self,
        source: RowReader,
        label: Labels,
        scaler: StandardScaler | None = None,
        weight: Array | None = None,
    ) -> None:
        self.source, self.label, self.scaler, self.weight = source, label, scaler, weight
        self.n_rows, self.dim = source.shape
        self._moments: Moments | None = None
        self._standardised: Stream | None = None

    def unscaled(self, most: int | None = None) -> Blocks:
        """Pass over all rows once, in their order, with their labels, before any scaling.

        Args:
            most: Rows of a block; None for blocks as the source gives them.

        Raises:
            HeadError: If a value is not finite.
        """
        start = 0
        for block in self.source.blocks():
            check_finite(block, start)
            size = most or len(block)
            for first in range(0, len(block), size):
                rows = block[first : first + size]
                yield rows, self.label[start + first : start + first + len(rows)]
            start += len(block)

    def blocks(self) -> Blocks:
        """Pass over all rows once, in their order, with their labels."""
        for rows, label in self.unscaled():
            yield self._scaled(rows), label

    def take(self, positions: npt.NDArray[np.int64]) -> Matrix:
        """Give some rows in the order asked for."""
        block = self.source.take(positions)
        check_finite(block, 0)
        return self._scaled(block)

    def _scaled(self, rows: Matrix) -> Matrix:
        return rows if self.scaler is None else np.asarray(self.scaler.transform(rows))

    def standardised(self) -> "Stream":
        """Scale every column to mean 0 and variance 1, as sklearn's ``StandardScaler`` does."""
        if self._standardised is None:
            scaler = StandardScaler()
            for rows, _ in self.unscaled():
                scaler.partial_fit(rows)
            self._standardised = Stream(self.source, self.label, scaler)
        return self._standardised

    def weighted(self, weight: Array) -> "Stream":
        """Give the same rows with other weights, of shape ``(N,)``."""
        return Stream(self.source, self.label, self.scaler, weight)

    @property
    def total(self) -> float:
        """How many rows there are, or the sum of their weights."""
        return float(self.n_rows) if self.weight is None else float(self.weight.sum())

    def moments(self) -> Moments:
        """Sum up means and scatter, once; scaling is made up for in the sums."""
        if self._moments is None:
            found = Moments.of(self.unscaled(), self.dim, self.weight)
            self._moments = found.rescale(*self.affine())
        return self._moments

    def affine(self) -> tuple[Array, Array]:
        """Give what scaling subtracts from the rows, and what it divides them by."""
        if self.scaler is None:
            return np.zeros(self.dim), np.ones(self.dim)
        return self.scaler.mean_, self.scaler.scale_


def gathered(blocks: Blocks, least: int) -> Blocks:
    """Join blocks of rows until each has so many at least, the last one apart.

    A product that adds to a matrix of ``D x D`` is bound by that matrix where it has fewer than D
    rows to take in.

    Args:
        blocks: Rows with their labels.
        least: How many rows.
    """
    some: list[tuple[Matrix, Labels]] = []
    for block in blocks:
        some.append(block)
        if sum(len(rows) for rows, _ in some) >= least:
            yield _joined(some)
            some = []
    if some:
        yield _joined(some)


def _joined(some: list[tuple[Matrix, Labels]]) -> tuple[Matrix, Labels]:
    if len(some) == 1:
        return some[0]
    return np.concatenate([rows for rows, _ in some]), np.concatenate([label for _, label in some])


def check_finite(block: Matrix, first: int) -> None:
    """Refuse values that are not finite.

    Args:
        block: Rows.
        first: The number of the first one.

    Raises:
        HeadError: If there are any; names the row.
    """
    if np.isfinite(np.sum(block, dtype=np.float64)):
        return
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        raise HeadError(
            f"features of row {first + int(np.argmin(finite))} are not finite; "
            "extract them again, in float32"
        )
