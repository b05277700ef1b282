"""Images in a tar: an index of offsets, and one read for each image."""

import posixpath
import tarfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from dfl.data.containers.base import ContainerError, no_such_place, not_unicode
from dfl.errors import one_line


def member_name(name: str) -> str:
    """Return the name of a member as a manifest has it: POSIX, without ``./`` before it."""
    return posixpath.normpath(name).lstrip("/")


def members_of(path: Path) -> Iterator[tuple[str, int, int]]:
    """List the files in a tar, in their order.

    Yields:
        A name, where its content begins, and how many bytes it has.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged or compressed, or has a link in it.
    """
    end = path.stat().st_size
    try:
        # "r:" does not look for compression: offsets are of no use in a compressed tar.
        with tarfile.open(path, "r:", errorlevel=2) as tar:
            while (info := tar.next()) is not None:
                if not_unicode(info.name):
                    raise ContainerError(
                        f"{path}: the name {info.name!a} is not UTF-8; pack the tar again"
                    )
                if info.issparse():
                    raise ContainerError(f"{path}: {info.name} is sparse; pack the tar again")
                if info.isfile():
                    if info.offset_data + info.size > end:
                        raise ContainerError(f"{path}: ends within {info.name}; restore the file")
                    yield member_name(info.name), info.offset_data, info.size
                elif info.islnk() or info.issym():
                    raise ContainerError(
                        f"{path}: {info.name} is a link to {info.linkname}; pack it again with "
                        "tar --dereference --hard-dereference"
                    )
                tar.members.clear()  # type: ignore[attr-defined]  # else all headers are kept
            stopped = tar.offset
    except (tarfile.TarError, EOFError) as err:
        raise ContainerError(
            f"{path}: not a readable tar ({one_line(err)}); restore it, or decompress it first"
        ) from err
    with path.open("rb") as stream:  # tarfile takes a damaged header for the end
        stream.seek(stopped)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0") or stream.tell() == stopped:
            raise ContainerError(f"{path}: not a readable tar after {stopped} bytes; restore it")


class TarFile:
    """The files in a tar by name.

    The index holds 24 bytes for each file: hashes of the names, sorted, and places.

    Args:
        path: The tar, not compressed.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged or compressed, or has a file of one name twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = [(_hash(name), start, size) for name, start, size in members_of(path)]
        keys, starts, sizes = np.array(rows, dtype=np.uint64).reshape(-1, 3).T
        order = np.argsort(keys, kind="stable")
        self._keys, self._starts, self._sizes = keys[order], starts[order], sizes[order]
        twice = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if twice.size:
            same = int(self._keys[twice[0]])
            name = next(name for name, _, _ in members_of(path) if _hash(name) == same)
            raise ContainerError(f"{path}: holds {name} twice; pack it again with each file once")

    def __contains__(self, member: str) -> bool:
        return self._find(member) is not None

    def size(self, member: str) -> int:
        """Return how many bytes a file has."""
        return self._place(member)[1]

    def read(self, member: str) -> bytes:
        """Return the bytes of a file; several threads may read at once."""
        start, size = self._place(member)
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(size)
        if len(content) < size:
            raise ContainerError(f"{self.path}: ends within {member}; restore the file")
        return content

    def _place(self, member: str) -> tuple[int, int]:
        found = self._find(member)
        if found is None:
            raise no_such_place(self.path, member)
        return int(self._starts[found]), int(self._sizes[found])

    def _find(self, member: str) -> int | None:
        key = np.uint64(_hash(member))
        place = int(np.searchsorted(self._keys, key))
        return place if place < len(self._keys) and self._keys[place] == key else None


def _hash(name: str) -> int:
    encoded = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "big")
