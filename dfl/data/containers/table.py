"""What the tables that hold images have in common: places, and how a cell holds an image."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from dfl.data.containers.base import SEPARATOR, ContainerError, no_such_place, place_of
from dfl.errors import one_line

__all__ = ["TableFile", "bytes_of", "is_image_type", "reading", "row_of"]


class TableFile(ABC):
    """A table of images, by column and row; threads take turns at reading it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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

    @abstractmethod
    def _place(self, member: str) -> tuple[str, int]:
        """Return column and row of a place, or raise a FileNotFoundError."""


def row_of(path: Path, member: str, rows: int, columns: list[str]) -> tuple[str, int]:
    """Take the place in a table apart.

    Args:
        path: The table, for the error.
        member: ``<column>/<row>``, rows counted from 0.
        rows: How many there are.
        columns: The columns there are.

    Raises:
        FileNotFoundError: If there is no such cell.
    """
    column, _, row = member.rpartition("/")
    # isdecimal takes other scripts' digits; a place has one way to be written.
    if column not in columns or not (row.isascii() and row.isdecimal()) or str(int(row)) != row:
        raise no_such_place(path, member)
    if int(row) >= rows:
        raise no_such_place(path, member)
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
