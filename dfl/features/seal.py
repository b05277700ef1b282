"""Checksums: a feature folder's description carries those of its files, and its own."""

from pathlib import Path
from typing import Final

from dfl.files import sha256_of
from dfl.recipe import Recipe, digest_of

__all__ = ["damaged_files", "is_sealed", "sealed"]

_FILES: Final = "checksums"
_OWN: Final = "sha256"


def sealed(document: Recipe, folder: Path) -> Recipe:
    """Add the checksums of all files of a folder to its description, then that of itself.

    Args:
        document: The description.
        folder: The folder; the description is not in it yet.

    Returns:
        The description with ``checksums`` by file name and ``sha256``.
    """
    kept = {key: value for key, value in document.items() if key not in (_FILES, _OWN)}
    kept[_FILES] = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    return kept | {_OWN: digest_of(kept)}


def is_sealed(document: Recipe) -> bool:
    """Say whether a description is as it was when it was sealed."""
    own = document.get(_OWN)
    return own == digest_of({key: value for key, value in document.items() if key != _OWN})


def damaged_files(document: Recipe, folder: Path, *, names: list[str] | None = None) -> list[Path]:
    """Read files again and list those that are not what they were.

    Args:
        document: A sealed description.
        folder: The folder.
        names: Which files; all by default.

    Returns:
        Those that are missing, unreadable or changed.
    """
    checksums = document[_FILES]
    if not isinstance(checksums, dict):
        return [folder]
    return [
        folder / name
        for name, expected in checksums.items()
        if (names is None or name in names) and not _is(folder / name, expected)
    ]


def _is(path: Path, expected: object) -> bool:
    try:
        return sha256_of(path) == expected
    except OSError:
        return False
