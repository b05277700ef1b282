"""Feature matrices in files, read and written row by row by plain calls.

Memory maps would be shorter. But the pages of one count as memory of the process that touched them,
until the system wants them back, and a batch job that has a limit is killed for them; and a disk
that fills kills a process that writes to a map (SIGBUS).
"""

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0

from dfl.errors import FeatureError
from dfl.files import fresh

BLOCK_BYTES: Final = 2**22
"""About what a block of rows takes: enough for BLAS, and float64 copies of it stay in the cache."""

_ADVICE: Final = hasattr(os, "posix_fadvise")  # Linux and others
_GAP: Final = 4  # as many rows that nobody asked for are read over rather than jumped over
_CANNOT_RESERVE: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)

Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Rows = slice | EllipsisType | npt.NDArray[np.integer]


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
            opened = fresh(lambda: os.open(file.path, os.O_RDONLY))
        except OSError as err:
            raise _unreadable(file, err) from err
        if inode_of(os.fstat(opened)) != file.inode:
            os.close(opened)
            raise replaced(file.path)
        kept = self._open.setdefault(file.path, opened)
        if kept != opened:  # another thread was faster
            os.close(opened)
        return kept


class StackedRows:
    """Rows of several matrices of the same columns, one matrix below the other.

    Args:
        parts: The rows of each, at least one.

    Attributes:
        shape: ``(N, D)``.
    """

    def __init__(self, parts: Sequence[FeatureRows]) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.shape = (int(self._ends[-1]), self._parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> Iterator[Matrix]:
        """Read all rows in their order, as `FeatureRows.blocks` does."""
        for part in self._parts:
            yield from part.blocks()

    def take(self, positions: Indices) -> Matrix:
        """Read some of these rows, in the order asked for, shape ``(len(positions), D)``."""
        out = np.empty((len(positions), self.shape[1]), dtype=np.float32)
        of_part = np.searchsorted(self._ends, positions, side="right")
        for place, part in enumerate(self._parts):
            own = of_part == place
            out[own] = part.take(positions[own] - (self._ends[place] - len(part)))
        return out


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
        if err.errno == errno.ESTALE:  # as a file that is open and was removed on another machine
            raise replaced(file.path) from err
        raise _unreadable(file, err) from err


def _unreadable(file: MatrixFile, err: OSError) -> FeatureError:
    return FeatureError(f"{file.path}: cannot be read ({err.strerror or err}); extract again")


class WrittenMatrix:
    """Rows of a float32 matrix, assigned in any order: ``matrix[rows] = values``.

    Args:
        descriptor: The open file.
        offset: Where the first row begins, in bytes.
        shape: ``(N, D)``.
    """

    def __init__(self, descriptor: int, offset: int, shape: tuple[int, int]) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self.shape = shape

    @classmethod
    @contextmanager
    def create(cls, path: Path, shape: tuple[int, int]) -> Iterator[Self]:
        """Make a file whose room on the disk is taken at once, so that it is not missing later.

        Args:
            path: The ``.npy`` file.
            shape: ``(N, D)``.

        Raises:
            OSError: If there is no room.
        """
        with path.open("wb") as file:
            header = header_data_from_array_1_0(np.empty((0, shape[1]), np.float32))
            write_array_header_1_0(file, header | {"shape": shape})
            offset = file.tell()
            file.flush()
            size = offset + 4 * shape[0] * shape[1]
            _reserve(file.fileno(), size)
            os.ftruncate(file.fileno(), size)
            yield cls(file.fileno(), offset, shape)

    def __setitem__(self, rows: Rows, values: npt.ArrayLike) -> None:
        """Write rows.

        Args:
            rows: A slice, ``...``, or their numbers, shape ``(n,)``.
            values: What broadcasts to ``(n, D)``.

        Raises:
            IndexError: If a row is not there.
            OSError: If the disk does not take it.
        """
        if isinstance(rows, np.ndarray):
            numbers = rows.astype(np.int64)
        else:
            numbers = np.arange(self.shape[0])[rows]
        if not len(numbers):
            return
        if numbers.min() < 0 or numbers.max() >= self.shape[0]:
            raise IndexError(f"row {numbers.max()} of {self.shape[0]}")
        block = np.ascontiguousarray(
            np.broadcast_to(np.asarray(values, dtype=np.float32), (len(numbers), self.shape[1]))
        )
        starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) != 1)
        for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
            self._write(int(numbers[start]), block[start:end])

    def _write(self, row: int, block: npt.NDArray[np.float32]) -> None:
        view = memoryview(block.tobytes())
        place = self._offset + 4 * self.shape[1] * row
        while view:
            count = os.pwrite(self._descriptor, view, place)
            view, place = view[count:], place + count


def _reserve(descriptor: int, size: int) -> None:
    """Take room on the disk; where that cannot be done, look at least whether there is any.

    Raises:
        OSError: If there is none.
    """
    try:
        _fallocate(descriptor, size)
    except OSError as err:
        if err.errno not in _CANNOT_RESERVE:
            raise
        state = os.fstatvfs(descriptor)
        # some file systems do not say, and the writes will
        if 0 < state.f_bavail * state.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from err


def _fallocate(descriptor: int, size: int) -> None:
    """Take room by Linux's own call, or say that there is none.

    The C library, and `os.posix_fallocate` with it, would write to every block where the file
    system cannot (NFSv3): the whole file, once more.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    number = errno.ENOSYS if call is None else errno.EINTR
    while number == errno.EINTR and call is not None:
        if not call(ctypes.c_int(descriptor), 0, ctypes.c_int64(0), ctypes.c_int64(size)):
            return
        number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def inode_of(state: os.stat_result) -> tuple[int, int]:
    """Identify a file or folder apart from its name."""
    return state.st_dev, state.st_ino


def replaced(path: Path) -> FeatureError:
    """Build the error of a feature folder that was replaced while it was in use."""
    return FeatureError(f"{path}: was replaced or removed while it was in use; run again")
