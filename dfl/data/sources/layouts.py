"""The folder layouts of the field, and the images that a folder holds.

A layout is a pair of folder names, one for each class. They stand at the end of a path, below
whatever folders a set has for its parts (``train``, ``val``, ``test``) and for the classes of its
objects.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dfl.data.containers.base import not_unicode
from dfl.data.sources.words import KNOWN_LAYOUTS, LAYOUT_OF, SIDE_LABELS
from dfl.errors import DataError

# What stands beside images in the published sets. Anything else counts as an image, so that a name
# without an ending, or with an unusual one, is never dropped in silence: if it is none, it is an
# error.
OTHER_ENDINGS: Final = re.compile(
    r"\.(txt|md|rst|pdf|html?|jsonl?|csv|tsv|xml|ya?ml|toml|ini|cfg|log|db|lock|tmp|part|py|ipynb|sh"
    r"|bat|js|css|npy|npz|pth?|pkl|h5|hdf5|mat|parquet|arrow|feather|safetensors|ckpt|onnx|lmdb|mdb"
    r"|zip|tar|t?gz|bz2|xz|7z|rar|md5|sha1|sha256|url|lnk|mp[34]|avi|mov|mkv|webm|wav|aae"
    r"|cls|cap|caption|id|index)",  # of WebDataset
    re.IGNORECASE,
)
OTHER_NAMES: Final = frozenset({"readme", "license", "licence", "checksums", "icon\r"})


@dataclass(frozen=True)
class Side:
    """A folder that holds the images of one class.

    Attributes:
        label: REAL or FAKE.
        name: The folder's name, which tells the layout.
        parts: The folders from the top of the tree to the one that this folder is in.
        images: POSIX paths from the top of the tree, sorted.
    """

    label: int
    name: str
    parts: tuple[str, ...]
    images: list[str]


@dataclass(frozen=True)
class FolderTree:
    """What a folder holds: sides of a layout, or images outside any.

    Attributes:
        sides: The sides found, in the order of their paths.
        loose: POSIX paths, from the top, of images that are in no side.
    """

    sides: list[Side] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)


def read_tree(top: Path) -> FolderTree:
    """Find the sides and the images in a folder.

    Raises:
        DataError: If the folder is missing or empty, two layouts meet in one place, or images stand
            beside the folders of a layout.
    """
    if not top.is_dir():
        raise DataError(f"{top}: no such folder; give the folder of an image set")
    tree = FolderTree()
    _read_into(tree, top, ())
    if tree.sides and tree.loose:
        first = "/".join((*tree.sides[0].parts, tree.sides[0].name))
        raise DataError(
            f"{top}: has a layout's folders ({first}) and images beside them "
            f"({tree.loose[0]}); keep one of the two (known layouts: {KNOWN_LAYOUTS})"
        )
    if not tree.loose and not any(side.images for side in tree.sides):
        raise DataError(f"{top}: holds no image; known layouts: {KNOWN_LAYOUTS}")
    return tree


def list_images(top: Path, *, recursive: bool = True) -> list[str]:
    """Return the POSIX paths, from ``top``, of all images in a folder, sorted.

    Raises:
        DataError: If the folder is missing, or a name is not Unicode.
    """
    if not top.is_dir():
        raise DataError(f"{top}: no such folder; give a folder of images")
    return sorted(_below(top, (), recursive=recursive))


def _read_into(tree: FolderTree, top: Path, parts: tuple[str, ...]) -> None:
    images, folders = _listing(top, parts)
    tree.loose.extend("/".join((*parts, name)) for name in images)
    sides = [name for name in folders if name in SIDE_LABELS]
    if len({LAYOUT_OF[name] for name in sides}) > 1:
        raise DataError(
            f"{top.joinpath(*parts)}: {' and '.join(sides)} are of two layouts; keep one of them "
            f"(known layouts: {KNOWN_LAYOUTS})"
        )
    for name in folders:
        if name not in SIDE_LABELS:
            _read_into(tree, top, (*parts, name))
            continue
        found = sorted(_below(top, (*parts, name), inside=name))
        tree.sides.append(Side(SIDE_LABELS[name], name, parts, found))


def _below(
    top: Path, parts: tuple[str, ...], *, inside: str = "", recursive: bool = True
) -> Iterator[str]:
    images, folders = _listing(top, parts)
    yield from ("/".join((*parts, name)) for name in images)
    for name in folders if recursive else []:
        if inside and name in SIDE_LABELS:
            raise DataError(
                f"{top.joinpath(*parts, name)}: a side's folder inside the side {inside!r}; "
                f"rename it or move it out (known layouts: {KNOWN_LAYOUTS})"
            )
        yield from _below(top, (*parts, name), inside=inside, recursive=recursive)


def _listing(top: Path, parts: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the names of the images and of the folders in one folder, sorted by code point."""
    folder = top.joinpath(*parts)
    above = (top.joinpath(*parts[:depth]).resolve() for depth in range(len(parts)))
    if folder.is_symlink() and folder.resolve() in above:
        raise DataError(f"{folder}: links to a folder that it is in; remove the link")
    images, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if not_unicode(entry.name):
                raise DataError(f"{folder}: the name {entry.name!r} is not UTF-8; rename the file")
            if entry.is_dir():
                folders.append(entry.name)
            # a link that leads nowhere is a missing image; a pipe or a device is none
            elif (entry.is_file() or entry.is_symlink()) and may_be_image(entry.name):
                images.append(entry.name)
    return sorted(images), sorted(folders)


def may_be_image(name: str) -> bool:
    """Tell from a file's name whether it counts as an image: unless it is known not to be one."""
    ending = name[name.rfind(".") :]
    return not OTHER_ENDINGS.fullmatch(ending) and name.lower() not in OTHER_NAMES
