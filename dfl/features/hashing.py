"""The images of an extraction: each once, and hashed."""

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from dfl.data.containers.content import NAMED_BYTES, content_hash, named_hash
from dfl.data.manifest.manifest import Manifest
from dfl.threads import in_threads

if TYPE_CHECKING:
    from _hashlib import HASH

_THREADS: Final = 8
DIGEST_BYTES: Final = 32
_AT_ONCE: Final = 4096
"""Rows of the table that are looked at together: a million of them never are."""


Digests = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class HashedImages:
    """What the images of a manifest hold, wherever they are.

    Attributes:
        fingerprint: Of the table and of the content of all images, a hexadecimal SHA-256.
        each: For every distinct image, in the order of their first rows, its `named_hash`, shape
            ``(M, 16)``, uint8.
    """

    fingerprint: str
    each: Digests


def distinct_images(manifest: Manifest) -> tuple[Manifest, npt.NDArray[np.int64]]:
    """Find the images of a manifest, each once.

    Args:
        manifest: Rows, some of which may name the same image in several dataset pairs.

    Returns:
        A manifest with the first row of each path, and for every row of `manifest` the position of
        its image in that, shape ``(N,)``.
    """
    image_of_row, paths = manifest.frame["path"].factorize()
    if len(paths) == len(manifest):
        return manifest, image_of_row
    once = manifest.frame.drop_duplicates("path", ignore_index=True)
    return Manifest(once, manifest.root), image_of_row


def content_hashes(manifest: Manifest, *, first: int = 0, step: int = 1) -> Digests:
    """Read images and hash what they hold.

    Args:
        manifest: The rows.
        first: The first of its distinct images to be read.
        step: How many further on each next one is, for processes that share the work.

    Returns:
        The SHA-256 of each, in the order of their first rows, ``(n, 32)``, uint8.

    Raises:
        OSError: If there is no such image or it cannot be read.
        ContainerError: If its container is damaged.
    """
    paths = manifest.frame["path"].drop_duplicates().iloc[first::step]
    contents = in_threads(
        content_hash,
        map(manifest.resolve, paths),
        threads=_THREADS,
        what="hash images",
        total=len(paths),
    )
    hashes = np.empty((len(paths), DIGEST_BYTES), dtype=np.uint8)
    for row, content in enumerate(contents):
        hashes[row] = np.frombuffer(bytes.fromhex(content), dtype=np.uint8)
    return hashes


def hash_images(manifest: Manifest, contents: Digests | None = None) -> HashedImages:
    """Hash a table and the content of its images.

    Args:
        manifest: The rows.
        contents: What `content_hashes` gives for all of its images; they are read by default.

    Returns:
        The hashes, the same wherever the images lie.
    """
    if contents is None:
        contents = content_hashes(manifest)
    digest = _hashed_rows(manifest)
    paths = manifest.frame["path"].drop_duplicates()
    each = np.empty((len(paths), NAMED_BYTES), dtype=np.uint8)
    for row, (path, known) in enumerate(zip(paths, contents, strict=True)):
        content = known.tobytes().hex()
        digest.update(content.encode())
        each[row] = np.frombuffer(named_hash(path, content), dtype=np.uint8)
    return HashedImages(digest.hexdigest(), each)


def rows_fingerprint(manifest: Manifest) -> str:
    """Hash a table alone, none of whose images is read.

    Args:
        manifest: The rows.

    Returns:
        A hexadecimal SHA-256.
    """
    return _hashed_rows(manifest).hexdigest()


def _hashed_rows(manifest: Manifest) -> "HASH":
    digest = sha256()
    for start in range(0, max(1, len(manifest)), _AT_ONCE):
        rows = manifest.frame.iloc[start : start + _AT_ONCE]
        digest.update(rows.to_csv(index=False, header=start == 0).encode())
    return digest
