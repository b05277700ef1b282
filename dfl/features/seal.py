"""Checksums: a feature folder's description carries those of its files, and its own."""

from pathlib import Path
from typing import Final

from dfl.files import sha256_of
from dfl.recipe import Plain, Recipe, digest_of

__all__ = ["damaged_files", "is_sealed", "resealed", "sealed"]

_FILES: Final = "checksums"
_OWN: Final = "checksum"


def sealed(document: Recipe, folder: Path) -> Recipe:
    """Add the checksums of all files of a folder to its description, then that of itself.

    Args:
        document: The description.
        folder: The folder; the description is not in it yet.

    Returns:
        The description with ``checksums`` by file name and ``checksum``.
    """
    checksums: Plain = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    return resealed(document | {_FILES: checksums})


def resealed(document: Recipe) -> Recipe:
    """Give a description that has changed, though not its files, its own checksum."""
    kept = {key: value for key, value in document.items() if key != _OWN}
    return kept | {_OWN: digest_of(kept)}


def is_sealed(document: Recipe) -> bool:
    """Say whether a description is as it was when it was sealed."""
    return document.get(_OWN) == resealed(document)[_OWN]


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
