"""Rows in a file without a name, which the system frees when its process ends, however it ends."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import numpy.typing as npt

from dfl.errors import HeadError
from dfl.heads.out_of_core.memory import readable

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ScratchRows:
    """Rows that are read back from the disk.

    Attributes:
        file: Holds them one after the other, in float32.
        shape: N and D.
        block_bytes: About what a block of rows takes.
    """

    file: IO[bytes]
    shape: tuple[int, int]
    block_bytes: int = 2**22

    def blocks(self) -> Iterator[Matrix]:
        """Read all rows in their order."""
        rows, dim = self.shape
        size = max(1, self.block_bytes // (4 * dim))
        for start in range(0, rows, size):
            yield self._read(start, min(size, rows - start))

    def take(self, positions: npt.NDArray[np.int64]) -> Matrix:
        """Read some rows, in the order asked for."""
        return np.concatenate([self._read(int(position), 1) for position in positions])

    def _read(self, start: int, count: int) -> Matrix:
        self.file.seek(4 * self.shape[1] * start)
        return np.fromfile(self.file, np.float32, count * self.shape[1]).reshape(count, -1)


@contextmanager
def scratch_rows(
    blocks: Iterable[Matrix], shape: tuple[int, int], folder: Path
) -> Iterator[ScratchRows]:
    """Keep rows on disk for as long as the context lasts.

    Args:
        blocks: The rows in their order, each block ``(n, D)``.
        shape: N and D.
        folder: On whose disk; made where it is missing.

    Raises:
        HeadError: If the disk does not take them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        try:
            for block in blocks:
                file.write(np.ascontiguousarray(block, dtype=np.float32).data)
            file.flush()
        except OSError as err:
            raise HeadError(
                f"{folder}: the disk does not take what a reduction makes of the features "
                f"({err.strerror or err}), {readable(4.0 * shape[0] * shape[1])} while heads are "
                "fitted; make room or choose another out"
            ) from err
        yield ScratchRows(file, shape)
