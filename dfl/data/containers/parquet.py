"""Images in a Parquet file: small groups of rows at once, large ones by a cursor."""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfl.data.containers.base import no_such_place
from dfl.data.containers.table import TableFile, reading

GROUP_BYTES: Final = 64 << 20  # a row group's column of at most this size is held whole
GROUPS: Final = 2
BATCH_ROWS: Final = 32
BATCHES: Final = 3  # several threads that read in order are never this far apart
READ_BYTES: Final = 1 << 20


class ParquetFile(TableFile):
    """The images in a Parquet file by column and row.

    Of a column's row groups, the last two that were read are held if they are small. In a large
    one, a cursor goes forward, and reading before it starts again at the group's first row. So
    reading in ascending order is fast in any file; in any order it is where all groups are held.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        with reading(path):
            self._file = pq.ParquetFile(
                path, buffer_size=READ_BYTES, pre_buffer=False, page_checksum_verification=True
            )
            meta = self._file.metadata
            sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
            columns = list(self._file.schema_arrow.names)
        super().__init__(path, columns, meta.num_rows)
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._groups: OrderedDict[tuple[str, int], pa.Array] = OrderedDict()
        self._cursor: _Cursor | None = None

    def _cell(self, column: str, row: int) -> object:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        row -= int(self._starts[group])
        if self._bytes(column, group) > GROUP_BYTES:
            if self._cursor is None or not self._cursor.reaches(column, group, row):
                self._cursor = _Cursor(self._file, column, group)
            return self._cursor.read(row)
        held = self._groups.get((column, group))
        if held is None:
            table = self._file.read_row_group(group, columns=[column], use_threads=False)
            held = self._groups[column, group] = table.column(column)
            while len(self._groups) > GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end((column, group))
        return held[row].as_py()

    def _bytes(self, column: str, group: int) -> int:
        meta = self._file.metadata.row_group(group)
        chunks = (meta.column(i) for i in range(meta.num_columns))
        return sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema == column or chunk.path_in_schema.startswith(f"{column}.")
        )


class _Cursor:
    """A position in one column of one row group, and the last rows before it."""

    def __init__(self, file: pq.ParquetFile, column: str, group: int) -> None:
        self.place = column, group
        self._batches: Iterator[pa.RecordBatch] = file.iter_batches(
            BATCH_ROWS, row_groups=[group], columns=[column], use_threads=False
        )
        self._held: OrderedDict[int, pa.Array] = OrderedDict()
        self._next = 0

    def reaches(self, column: str, group: int, row: int) -> bool:
        first = next(iter(self._held), 0)
        return self.place == (column, group) and row >= first

    def read(self, row: int) -> object:
        while row >= self._next:
            batch = next(self._batches, None)
            if batch is None:
                raise no_such_place(Path(self.place[0]), str(row))
            self._held[self._next] = batch.column(0)
            self._next += batch.num_rows
            while len(self._held) > BATCHES:
                self._held.popitem(last=False)
        start = next(start for start in reversed(self._held) if start <= row)
        return self._held[start][row - start].as_py()
