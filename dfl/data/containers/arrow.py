"""Images in an Arrow file, as Hugging Face's datasets keep them on disk."""

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from dfl.data.containers.table import TableFile, reading

MAPPED_BYTES: Final = 16 << 20  # pages of a map that were read count as memory until it is closed


def open_table(path: Path) -> pa.Table:
    """Map an Arrow file, in its stream or its file format, into memory.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged.
    """
    with reading(path):
        source = pa.memory_map(str(path))
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        opened = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        return opened.read_all()


class ArrowFile(TableFile):
    """The images in an Arrow file by column and row, read in any order at the same speed.

    Of many files some are open at a time, and opening one takes longer than reading an image.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._table = open_table(path)
        super().__init__(path, list(self._table.column_names), self._table.num_rows)
        batches = [len(chunk) for chunk in self._table.column(0).chunks] if self._columns else []
        self._starts = np.concatenate([[0], np.cumsum(batches, dtype=np.int64)])
        self._read = 0

    def read(self, member: str) -> bytes:
        """Return the bytes of an image."""
        content = super().read(member)
        with self._lock:
            self._read += len(content)
            if self._read > MAPPED_BYTES:
                self._read = 0
                self._table = open_table(self.path)
        return content

    def _cell(self, column: str, row: int) -> object:
        batch = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._table.column(column).chunk(batch)[row - int(self._starts[batch])].as_py()
