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
_AT_ONCE: Final = 4096
"""Rows of the table that are looked at together: a million of them never are."""


@dataclass(frozen=True)
class HashedImages:
    """What the images of a manifest hold, wherever they are.

    Attributes:
        fingerprint: Of the table and of the content of all images, a hexadecimal SHA-256.
        each: For every distinct image, in the order of their first rows, its `named_hash`, shape
            ``(M, 16)``, uint8.
    """

    fingerprint: str
    each: npt.NDArray[np.uint8]


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


def hash_images(manifest: Manifest) -> HashedImages:
    """Hash a table and the content of its images.

    Args:
        manifest: The rows; their images are read.

    Returns:
        The hashes, the same wherever the images lie.
    """
    digest = _hashed_rows(manifest)
    paths = manifest.frame["path"].drop_duplicates()
    each = np.empty((len(paths), NAMED_BYTES), dtype=np.uint8)
    files = map(manifest.resolve, paths)
    contents = in_threads(
        content_hash, files, threads=_THREADS, what="hash images", total=len(paths)
    )
    for row, (path, content) in enumerate(zip(paths, contents, strict=True)):
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
