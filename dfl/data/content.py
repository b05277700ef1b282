"""Where the bytes of an image are: a file, or a place inside a container that is never unpacked.

A path with ``::`` behind the name of a container names an image in it: ``shards/a.tar::dir/x.jpg``
is a member of a tar, ``part-0.parquet::image/17`` and ``data-00000.arrow::image/17`` are the
eighteenth row of a column. All other paths are files, whatever their names.
"""

import errno
import os
import re
import threading
from collections import OrderedDict
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Final, Protocol

from dfl.errors import DataError, ImageError
from dfl.files import sha256_of

__all__ = [
    "CONTAINER_ENDINGS",
    "NAMED_BYTES",
    "SEPARATOR",
    "Container",
    "ContainerError",
    "content_hash",
    "is_there",
    "named_hash",
    "no_such_place",
    "not_unicode",
    "open_container",
    "order_of",
    "place_of",
    "read_bytes",
    "remember",
    "size_of",
]

SEPARATOR: Final = "::"
CONTAINER_ENDINGS: Final = (".tar", ".parquet", ".arrow", ".hf.json")
PLACE: Final = re.compile(r"(.+?(?:\.tar|\.parquet|\.arrow|\.hf\.json))::(.+)", re.DOTALL)
SIZE_BYTES: Final = 8
OPEN_TARS: Final = 1 << 14  # an index of offsets each
OPEN_TABLES: Final = 4  # some decoded rows each
NAMED_BYTES: Final = 16
HASHES: Final = 1 << 21  # about 200 bytes each


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


def read_bytes(path: Path) -> bytes:
    """Read an image's own bytes.

    Raises:
        OSError: If there is no such image or it cannot be read.
        ContainerError: If its container is damaged, or holds no image there.
    """
    place = place_of(path)
    if place is None:
        return path.read_bytes()
    return open_container(place[0]).read(place[1])


def size_of(path: Path) -> int:
    """Return how many bytes an image has.

    Raises:
        OSError: If there is no such image or it cannot be read.
        ContainerError: If its container is damaged, or holds no image there.
    """
    place = place_of(path)
    if place is None:
        return path.stat().st_size
    size = open_container(place[0]).size(place[1])
    return _measure(path)[0] if size is None else size


def content_hash(path: Path) -> str:
    """Hash an image's own bytes, not those of its container.

    An image is read once a process, as long as its file or container keeps its size and its time.

    Returns:
        A hexadecimal SHA-256.

    Raises:
        OSError: If there is no such image or it cannot be read.
        ContainerError: If its container is damaged, or holds no image there.
    """
    return _measure(path)[1].hex()


def named_hash(path: str, content: str) -> bytes:
    """Identify an image by the path that a manifest gives it and by its content, in 16 bytes.

    Args:
        path: The path in the manifest.
        content: The SHA-256 of the image's bytes, hexadecimal.
    """
    text = f"{path}\n{content}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=NAMED_BYTES).digest()


def is_there(path: Path) -> bool:
    """Whether there is such an image, without reading it.

    Raises:
        ContainerError: If its container is damaged.
    """
    place = place_of(path)
    if place is None:
        return path.is_file()
    return place[0].is_file() and place[1] in open_container(place[0])


def remember(path: Path, size: int, digest: bytes) -> None:
    """Note what an image's bytes are like, where they were read for another reason anyway.

    Args:
        path: The image.
        size: How many bytes it has.
        digest: Their SHA-256.
    """
    _note(_look(path), (size, digest))


_known: dict[bytes, bytes] = {}  # one object for size and digest, not a tuple of three


def _measure(path: Path) -> tuple[int, bytes]:
    """Return the number of bytes of an image and their hash."""
    look = _look(path)
    if (noted := _known.get(look)) is not None:
        return int.from_bytes(noted[:SIZE_BYTES], "big"), noted[SIZE_BYTES:]
    if place_of(path) is None:
        known = path.stat().st_size, bytes.fromhex(sha256_of(path))
    else:
        content = read_bytes(path)
        known = len(content), sha256(content).digest()
    _note(look, known)
    return known


def _look(path: Path) -> bytes:
    """Return what an image goes by as long as its file or container looks the same."""
    place = place_of(path)
    state = (path if place is None else place[0]).stat()
    text = f"{path}|{state.st_size}|{state.st_mtime_ns}"
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _note(look: bytes, known: tuple[int, bytes]) -> None:
    if len(_known) >= HASHES:
        _known.clear()
    _known[look] = known[0].to_bytes(SIZE_BYTES, "big") + known[1]


_Key = tuple[str, int, int]
_lock = threading.Lock()
_tars: OrderedDict[_Key, Container] = OrderedDict()
_tables: OrderedDict[_Key, Container] = OrderedDict()


def open_container(path: Path) -> Container:
    """Open a container, or give the one that is open; the least recently used are closed.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged.
        DataError: If an optional package is missing.
    """
    state = path.stat()
    key = (str(path), state.st_size, state.st_mtime_ns)
    is_tar = path.name.endswith(".tar")
    opened, most = (_tars, OPEN_TARS) if is_tar else (_tables, OPEN_TABLES)
    with _lock:
        container = opened.get(key)
        if container is None:
            container = _open(path)
            opened[key] = container
            while len(opened) > most:
                opened.popitem(last=False)
        opened.move_to_end(key)
        return container


def _open(path: Path) -> Container:
    if path.name.endswith(".tar"):
        from dfl.data.tar_file import TarFile

        return TarFile(path)
    if path.name.endswith(".parquet"):
        from dfl.data.parquet_file import ParquetFile

        return ParquetFile(path)
    if path.name.endswith(".arrow"):
        from dfl.data.arrow_file import ArrowFile

        return ArrowFile(path)
    if path.name.endswith(".hf.json"):
        from dfl.data.stream_file import StreamFile

        return StreamFile(path)
    raise DataError(f"{path}: is no container; known are {', '.join(CONTAINER_ENDINGS)}")


def no_such_place(path: Path, member: str) -> FileNotFoundError:
    """Build the error of a place that a container does not have."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{path}{SEPARATOR}{member}")


def not_unicode(name: str) -> bool:
    """Say whether a name holds bytes that are not UTF-8, which Python keeps as surrogates."""
    return not name.isprintable() and any("\ud800" <= each <= "\udfff" for each in name)


def _forget() -> None:
    """Open tables again in a forked process, which shares their positions with its parent.

    Tars have no position: their indexes stay.
    """
    global _lock
    _lock = threading.Lock()
    _tables.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
