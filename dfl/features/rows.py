"""Rows of feature matrices, read in pieces by plain file reads.

The pages of a memory map count as memory of the process that touched them, until the system wants
them back; a batch job that has a limit is killed for them. What is read here is a copy of the rows
asked for and of nothing else, however large the matrix is.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from dfl.errors import FeatureError
from dfl.features.store import FeatureStore, Matrix, inode_of, replaced

BLOCK_BYTES: Final = 2**22
"""About what a block of rows takes: enough for BLAS, and float64 copies of it stay in the cache."""

_ADVICE: Final = hasattr(os, "posix_fadvise")  # Linux and others
_GAP: Final = 4  # as many rows that nobody asked for are read over rather than jumped over

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MatrixFile:
    """Where a float32 matrix lies in a file, row by row.

    Attributes:
        path: The file.
        offset: Where the first row begins, in bytes.
        dim: Columns.
        inode: Which file it is, whatever comes to have its name.
    """

    path: Path
    offset: int
    dim: int
    inode: tuple[int, int]

    @classmethod
    def at(cls, path: Path, offset: int, dim: int) -> Self:
        """Take the file that has this name now."""
        return cls(path, offset, dim, inode_of(path.stat()))

    @classmethod
    def of(cls, matrix: Matrix) -> Self:
        """Find the file of a memory-mapped matrix.

        Raises:
            FeatureError: If it is no memory map that can be read row by row.
        """
        if not isinstance(matrix, np.memmap) or not matrix.flags.c_contiguous:
            raise FeatureError("a feature matrix is not stored row by row; extract it again")
        return cls.at(Path(str(matrix.filename)), int(matrix.offset), matrix.shape[1])


class FeatureRows:
    """Chosen rows of the matrices of some files, side by side.

    Reading is by position in the file, so that threads and forked workers can share it; a pickled
    copy opens the files anew, and refuses others that have got their names meanwhile.

    Args:
        files: One file a layer, whose rows are those of one manifest.
        rows: Which rows of the files, in which order, shape ``(N,)``.

    Attributes:
        shape: ``(N, D)``.
    """

    def __init__(self, files: Sequence[MatrixFile], rows: npt.NDArray[np.integer]) -> None:
        self._open: dict[Path, int] = {}
        self._files = tuple(files)
        self._rows: Indices = np.asarray(rows, dtype=np.int64)
        self.shape = (len(self._rows), sum(file.dim for file in self._files))

    @classmethod
    def of(
        cls,
        store: FeatureStore,
        layers: Sequence[str] | None = None,
        rows: npt.NDArray[np.integer] | None = None,
    ) -> Self:
        """Choose rows of a feature folder.

        Args:
            store: The folder.
            layers: Which layers to concatenate; None for all.
            rows: Which rows, in which order; None for all.

        Raises:
            FeatureError: If a layer is unknown, its file is damaged, or other features have taken
                the folder's place since it was opened.
        """
        files = [MatrixFile.of(store.matrix([layer.name])) for layer in store.select(layers)]
        store.check_unchanged()  # after the files' own look: they are of the folder that was opened
        return cls(files, np.arange(len(store.manifest)) if rows is None else rows)

    @classmethod
    def beside(cls, parts: Sequence["FeatureRows"]) -> Self:
        """Put the columns of several side by side, whose rows are the same, one at least."""
        return cls([file for part in parts for file in part._files], parts[0]._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": {}}

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def chosen(self, positions: Indices) -> "FeatureRows":
        """Choose among these rows, by their positions."""
        return FeatureRows(self._files, self._rows[positions])

    def blocks(self) -> Iterator[Matrix]:
        """Read all rows in their order, a block of some MiB at a time, each ``(n, D)`` float32.

        Raises:
            FeatureError: If a file is shorter than it was.
        """
        size = max(1, BLOCK_BYTES // (4 * self.shape[1]))
        for start in range(0, len(self._rows), size):
            yield self._read(self._rows[start : start + size])

    def take(self, positions: Indices) -> Matrix:
        """Read some of these rows, in the order asked for, shape ``(len(positions), D)``."""
        return self._read(self._rows[positions])

    def read(self) -> Matrix:
        """Read all rows into memory, shape ``(N, D)``."""
        return self._read(self._rows)

    def _read(self, rows: Indices) -> Matrix:
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        if not len(rows):
            return out
        if (np.diff(rows) < 0).any():  # files are read forwards
            order = np.argsort(rows, kind="stable")
            out[order] = self._read(rows[order])
            return out
        starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - _GAP - 2) > _GAP + 1)
        ends = np.append(starts[1:], len(rows))
        firsts, lasts = rows[starts], rows[ends - 1]
        spans = [*zip(*(x.tolist() for x in (starts, ends, firsts, lasts)), strict=True)]
        column = 0
        for file in self._files:
            descriptor, size = self._descriptor(file), 4 * file.dim
            if len(spans) > 1 and _ADVICE:  # what has to come from the disk comes all at once
                for _, _, first, last in spans:
                    place, count = file.offset + size * first, size * (last - first + 1)
                    os.posix_fadvise(descriptor, place, count, os.POSIX_FADV_WILLNEED)
            for start, end, first, last in spans:
                part = out[start:end, column : column + file.dim]
                own, count = rows[start:end], last - first + 1
                is_whole = count == len(own) and (count < 3 or bool((np.diff(own) == 1).all()))
                if is_whole and part.flags.c_contiguous:
                    _fill(part, descriptor, file, first)
                else:
                    span = np.empty((count, file.dim), dtype=np.float32)
                    _fill(span, descriptor, file, first)
                    part[:] = span[own - first]
            column += file.dim
        return out

    def _descriptor(self, file: MatrixFile) -> int:
        if (found := self._open.get(file.path)) is not None:
            return found
        try:
            opened = os.open(file.path, os.O_RDONLY)
        except OSError as err:
            raise _unreadable(file, err) from err
        if inode_of(os.fstat(opened)) != file.inode:
            os.close(opened)
            raise replaced(file.path)
        kept = self._open.setdefault(file.path, opened)
        if kept != opened:  # another thread was faster
            os.close(opened)
        return kept


def _fill(out: Matrix, descriptor: int, file: MatrixFile, row: int) -> None:
    """Read consecutive rows, from one on."""
    view, place = out.data.cast("B"), file.offset + 4 * file.dim * row
    try:
        while view:
            count = os.preadv(descriptor, [view], place)
            if not count:
                raise FeatureError(f"{file.path}: shorter than it was; extract it again")
            view, place = view[count:], place + count
    except OSError as err:
        raise _unreadable(file, err) from err


def _unreadable(file: MatrixFile, err: OSError) -> FeatureError:
    return FeatureError(f"{file.path}: cannot be read ({err.strerror or err}); extract again")
