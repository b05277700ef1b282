"""The bytes of an image, wherever they are, and their hashes."""

from hashlib import blake2b, sha256
from pathlib import Path
from typing import Final

from dfl.data.containers.base import place_of
from dfl.data.containers.registry import open_container
from dfl.files import checksum_of

SIZE_BYTES: Final = 8
NAMED_BYTES: Final = 16
HASHES: Final = 1 << 21  # about 200 bytes each


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


_known: dict[bytes, bytes] = {}
"""Size and digest of an image's bytes in one object, by what the image goes by."""


def _measure(path: Path) -> tuple[int, bytes]:
    """Return the number of bytes of an image and their hash."""
    place = place_of(path)
    state = (path if place is None else place[0]).stat()
    text = f"{path}|{state.st_size}|{state.st_mtime_ns}"  # as long as its file looks the same
    look = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
    if (noted := _known.get(look)) is None:
        if place is None:
            size, digest = state.st_size, bytes.fromhex(checksum_of(path))
        else:
            content = read_bytes(path)
            size, digest = len(content), sha256(content).digest()
        if len(_known) >= HASHES:
            _known.clear()
        noted = _known[look] = size.to_bytes(SIZE_BYTES, "big") + digest
    return int.from_bytes(noted[:SIZE_BYTES], "big"), noted[SIZE_BYTES:]
