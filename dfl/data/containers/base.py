"""What all containers of images have in common: names of places in them, and how they are read.

A path with ``::`` behind the name of a container names an image in it: ``shards/a.tar::dir/x.jpg``
is a member of a tar, ``part-0.parquet::image/17`` and ``data-00000.arrow::image/17`` are the
eighteenth row of a column. All other paths are files, whatever their names.
"""

import errno
import os
import re
from pathlib import Path
from typing import Final, Protocol

from dfl.errors import ImageError

SEPARATOR: Final = "::"
CONTAINER_ENDINGS: Final = (".tar", ".parquet", ".arrow")
ENDING: Final = "|".join(map(re.escape, CONTAINER_ENDINGS))
PLACE: Final = re.compile(rf"(.+?(?:{ENDING})){SEPARATOR}(.+)", re.DOTALL)


class ContainerError(ImageError):
    """A container that is damaged, or whose place holds no image."""


class Container(Protocol):
    """A file with many images, open for reading by any thread of one process."""

    def read(self, member: str) -> bytes:
        """Return the bytes of an image.

        Raises:
            FileNotFoundError: If there is no such place.
            ContainerError: If the container is damaged or the place holds no image.
        """

    def size(self, member: str) -> int | None:
        """Return how many bytes an image has, None if that costs as much as reading it."""

    def __contains__(self, member: str) -> bool:
        """Whether there is such a place."""


def place_of(path: str | Path) -> tuple[Path, str] | None:
    """Take a path apart.

    Returns:
        The container and the place in it; None for the path of a plain file.
    """
    found = PLACE.fullmatch(str(path)) if SEPARATOR in str(path) else None
    return (Path(found[1]), found[2]) if found else None


def order_of(path: str) -> tuple[str, int]:
    """Return what to sort a path by: rows of a table by number, which is how they are read."""
    before, slash, last = path.rpartition("/")
    if SEPARATOR in before and last.isascii() and last.isdecimal():
        return before + slash, int(last)
    return path, 0


def no_such_place(path: Path, member: str) -> FileNotFoundError:
    """Build the error of a place that a container does not have."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{path}{SEPARATOR}{member}")


def not_unicode(name: str) -> bool:
    """Say whether a name holds bytes that are not UTF-8, which Python keeps as surrogates."""
    return not name.isprintable() and any("\ud800" <= each <= "\udfff" for each in name)
