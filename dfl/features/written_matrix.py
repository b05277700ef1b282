"""A matrix that is written to a ``.npy`` file by plain writes.

A memory map would be shorter, but a disk that fills kills a process that writes to a map (SIGBUS),
and the pages written count as its memory.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import EllipsisType
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0

Rows = slice | EllipsisType | npt.NDArray[np.integer]

_SMALL: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


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
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows: the writes will say
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as err:
        if err.errno not in _SMALL:
            raise
