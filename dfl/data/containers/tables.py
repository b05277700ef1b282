"""Images in tables: Arrow files, as Hugging Face's datasets keep them, and Parquet files."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfl.data.containers.base import SEPARATOR, ContainerError, no_such_place, place_of
from dfl.errors import one_line

MAPPED_BYTES: Final = 16 << 20  # pages of a map that were read count as memory until it is closed
GROUPS: Final = 2
BATCHES: Final = 3  # several threads that read in order are never this far apart
READ_BYTES: Final = 1 << 20


class TableFile(ABC):
    """The images in a table, by column and row; threads take turns at reading it.

    Args:
        path: The file.
        columns: Its columns.
        rows: How many rows it has.
    """

    def __init__(self, path: Path, columns: list[str], rows: int) -> None:
        self.path = path
        self._columns = columns
        self._rows = rows
        self._lock = threading.Lock()

    def __contains__(self, member: str) -> bool:
        try:
            self._place(member)
        except FileNotFoundError:
            return False
        return True

    def size(self, member: str) -> None:
        """Say that a size is not known without reading."""
        return

    def read(self, member: str) -> bytes:
        """Return the bytes of an image."""
        column, row = self._place(member)
        with self._lock, reading(self.path):
            cell = self._cell(column, row)
        return bytes_of(cell, self.path, member)

    @abstractmethod
    def _cell(self, column: str, row: int) -> object:
        """Read a cell that is there; no other thread does meanwhile."""

    def _place(self, member: str) -> tuple[str, int]:
        """Return column and row of ``<column>/<row>``, or raise a FileNotFoundError."""
        column, _, row = member.rpartition("/")
        # isdecimal takes other scripts' digits; a place has one way to be written
        is_row = row.isascii() and row.isdecimal() and str(int(row)) == row
        if column not in self._columns or not is_row or int(row) >= self._rows:
            raise no_such_place(self.path, member)
        return column, int(row)


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


class ParquetFile(TableFile):
    """The images in a Parquet file by column and row.

    Of a column's row groups, the last two that were read are held if they are small. In a large
    one, a cursor goes forward, and reading before it starts again at the group's first row. So
    reading in ascending order is fast in any file; in any order it is where all groups are held.

    Args:
        path: The file.
        group_bytes: Up to which size a row group's column is held whole.
        batch_rows: How many rows of a larger one are read at once.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged.
    """

    def __init__(self, path: Path, *, group_bytes: int = 64 << 20, batch_rows: int = 32) -> None:
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
        self._group_bytes = group_bytes
        self._batch_rows = batch_rows

    def _cell(self, column: str, row: int) -> object:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        row -= int(self._starts[group])
        if self._bytes(column, group) > self._group_bytes:
            if self._cursor is None or not self._cursor.reaches(column, group, row):
                self._cursor = _Cursor(self._file, column, group, self._batch_rows)
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

    def __init__(self, file: pq.ParquetFile, column: str, group: int, batch_rows: int) -> None:
        self.place = column, group
        self._batches: Iterator[pa.RecordBatch] = file.iter_batches(
            batch_rows, row_groups=[group], columns=[column], use_threads=False
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


def bytes_of(cell: object, path: Path, member: str) -> bytes:
    """Return the image in a cell.

    Args:
        cell: Bytes, or what Hugging Face's ``Image`` is stored as: a mapping with ``bytes``, or
            with the ``path`` of a file only, relative to the table's folder.
        path: The table.
        member: The place, for the error.

    Raises:
        ContainerError: If the cell is empty or holds something else.
        OSError: If it names a file that cannot be read.
    """
    if isinstance(cell, dict):
        name = cell.get("path")
        cell = cell.get("bytes")
        if cell is None and isinstance(name, str) and "://" not in name:
            return (path.parent / name).read_bytes()
    if isinstance(cell, bytes):
        return cell
    where = f"{path}{SEPARATOR}{member}"
    if cell is None:
        raise ContainerError(f"{where}: the row has no image; remove it")
    raise ContainerError(f"{where}: holds {type(cell).__name__}, no image; name another column")


def is_image_type(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold images."""
    if pa.types.is_struct(kind):
        names = {kind.field(i).name for i in range(kind.num_fields)}
        return "bytes" in names and is_image_type(kind.field("bytes").type)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into a ContainerError of one line."""
    try:
        yield
    except (pa.ArrowException, OSError) as err:
        if isinstance(err, FileNotFoundError | PermissionError) or place_of(str(err.args[-1])):
            raise
        reason = one_line(err, 200)
        kind = path.suffix[1:].capitalize()
        raise ContainerError(f"{path}: not a readable {kind} file ({reason}); restore it") from err
