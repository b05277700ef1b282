"""The folder layouts of the field, and the images that a folder holds.

In a layout folders are called for the class of their images. Above them are folders for the parts
of a set (``train``, ``val``, ``test``) and for the classes of its objects, and below them folders
for generators.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dfl.data.containers.base import not_unicode
from dfl.data.sources.words import KNOWN_LAYOUTS, SIDES, sides_of
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
ANY_FOLDERS: Final = (
    "the source Pairs takes any folders: pairs: {NAME: {real: FOLDER, fake: FOLDER}}"
)


@dataclass(frozen=True)
class Side:
    """A folder that holds the images of one class.

    Attributes:
        label: REAL or FAKE.
        name: The folder's name, which tells the layout.
        parts: The folders from the top of the tree to the one that this folder is in.
        images: POSIX paths from the top of the tree, sorted.
        generator: What made them, where the folder's name says so.
        depth: How many folders stand before those below the side, in the paths of images.
    """

    label: int
    name: str
    parts: tuple[str, ...]
    images: list[str]
    generator: str = ""
    depth: int = 0

    def folders(self) -> dict[str, list[str]]:
        """Return, for each folder with images, the names of the folders below the side."""
        places = dict.fromkeys(image.rpartition("/")[0] for image in self.images)
        return {place: place.split("/")[self.depth :] if place else [] for place in places}


@dataclass(frozen=True)
class FolderTree:
    """What a folder holds: sides of a layout, or images outside any.

    Attributes:
        sides: The sides found, in the order of their paths.
        loose: POSIX paths, from the top, of images that are in no side.
        reasons: Why a folder is a side, where not by its word alone; a line each.
    """

    sides: list[Side] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


@dataclass
class _Node:
    """A folder: its images, its folders, and whether any folder below is a side by its name."""

    images: list[str] = field(default_factory=list)
    folders: dict[str, "_Node"] = field(default_factory=dict)
    has_side: bool = False


def read_tree(top: Path) -> FolderTree:
    """Find the sides and the images in a folder.

    Raises:
        DataError: If the folder is missing or empty, two layouts meet in one place, or images stand
            beside the folders of a layout.
    """
    if not top.is_dir():
        raise DataError(f"{top}: no such folder; give the folder of an image set")
    images = list_images(top)
    if not images:
        raise DataError(f"{top}: holds no image; known layouts: {KNOWN_LAYOUTS}")
    return find_sides(images, str(top))


def find_sides(paths: Sequence[str], top: str, *, within: str = "") -> FolderTree:
    """Find the sides of a layout by the folders of images.

    Args:
        paths: POSIX paths of images, from a folder or as they are in a tar.
        top: The folder or the tar, for errors.
        within: What stands before paths in a manifest, for errors.

    Raises:
        DataError: If two layouts meet in one place, a side is inside the other, or images stand
            beside the folders of a layout.
    """
    root = _Node()
    nodes = {"": root}
    for path in paths:
        _node_of(path.rpartition("/")[0], nodes).images.append(path)
    tree = FolderTree()
    _read_into(tree, root, (), top)
    if tree.sides and tree.loose:
        first = "/".join((*tree.sides[0].parts, tree.sides[0].name))
        raise DataError(
            f"{top}: has a layout's folders ({first}) and images beside them "
            f"({within}{tree.loose[0]}); keep one of the two (known layouts: {KNOWN_LAYOUTS}), or "
            f"choose: {ANY_FOLDERS}"
        )
    return tree


def refuse_other_side(side: Side, place: str) -> None:
    """Refuse a side in which a folder is called for the other class.

    Args:
        side: The side.
        place: Where it is, for the error.

    Raises:
        DataError: If there is such a folder.
    """
    for names in side.folders().values():
        for depth, name in enumerate(names, 1):
            if SIDES.get(name.lower(), side.label) != side.label:
                raise DataError(
                    f"{place}/{'/'.join(names[:depth])}: a side's folder inside the side "
                    f"{side.name!r}; rename it or move it out (known layouts: {KNOWN_LAYOUTS})"
                )


def list_images(top: Path, *, recursive: bool = True) -> list[str]:
    """Return the POSIX paths, from ``top``, of all images in a folder, sorted.

    Raises:
        DataError: If the folder is missing, or a name is not Unicode.
    """
    if not top.is_dir():
        raise DataError(f"{top}: no such folder; give a folder of images")
    return sorted(_below(top, (), recursive=recursive))


def _node_of(folder: str, nodes: dict[str, _Node]) -> _Node:
    if folder not in nodes:
        above, _, name = folder.rpartition("/")
        nodes[folder] = _node_of(above, nodes).folders[name] = _Node()
        if name.lower() in SIDES:
            while above:
                nodes[above].has_side = True
                above = above.rpartition("/")[0]
    return nodes[folder]


def _read_into(tree: FolderTree, node: _Node, parts: tuple[str, ...], top: str) -> None:
    place = "/".join((top, *parts))
    tree.loose.extend(node.images)
    _refuse_two_layouts(sorted(name for name in node.folders if name.lower() in SIDES), place)
    leaves = [name for name, each in node.folders.items() if not each.has_side]
    found = sides_of(node.folders, leaves=leaves, is_all=not node.images)
    if found.reason:
        tree.reasons.append(f"{place}: {found.reason}")
    for name, folder in sorted(node.folders.items()):
        if name not in found.labels:
            _read_into(tree, folder, (*parts, name), top)
            continue
        images = sorted(_images_of(folder))
        made_by = found.generators.get(name, "")
        side = Side(found.labels[name], name, parts, images, made_by, len(parts) + 1)
        refuse_other_side(side, f"{place}/{name}")
        tree.sides.append(side)


def _refuse_two_layouts(sides: list[str], place: str) -> None:
    labels = [SIDES[name.lower()] for name in sides]
    numbered = {name[0].isdecimal() for name in sides}
    if len(labels) > len(set(labels)) or len(numbered) > 1:
        raise DataError(
            f"{place}: {' and '.join(sides)} are of two layouts; keep one of them (known layouts: "
            f"{KNOWN_LAYOUTS}), or choose: {ANY_FOLDERS}"
        )


def _images_of(node: _Node) -> Iterator[str]:
    yield from node.images
    for folder in node.folders.values():
        yield from _images_of(folder)


def _below(top: Path, parts: tuple[str, ...], *, recursive: bool) -> Iterator[str]:
    images, folders = _listing(top, parts)
    yield from ("/".join((*parts, name)) for name in images)
    for name in folders if recursive else []:
        yield from _below(top, (*parts, name), recursive=recursive)


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
