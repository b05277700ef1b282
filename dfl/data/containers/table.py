"""What the tables that hold images have in common: places, and how a cell holds an image."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from dfl.data.containers.base import SEPARATOR, ContainerError, no_such_place, place_of
from dfl.errors import one_line


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
