"""Sources: folders of images, and how class, generator, split and group are told from names."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import pandas as pd

from dfl.data.manifest.manifest import COLUMNS, Manifest
from dfl.data.sources.layouts import (
    KNOWN_LAYOUTS,
    SIDE_LABELS,
    SPLIT_FOLDERS,
    Side,
    list_images,
    read_tree,
)
from dfl.data.sources.packed import PackedImage, packed_files, packed_images
from dfl.errors import ConfigError, DataError
from dfl.types import FAKE, REAL, UNKNOWN

__all__ = ["ScannedImage", "Source", "manifest_of", "scan_folder", "scan_side", "scan_tree"]

SIDE_NAMES: Final = {REAL: "real", FAKE: "fake"}


@dataclass
class Source:
    """One image set on one side of a pair.

    Args:
        path: The folder, under the root: the side itself, or a set with the folders of a layout, of
            which those of the wanted side are taken (``imagenet`` with ``0_real`` in it). Or where
            the side is packed: a ``.tar`` or ``.parquet`` file, a pattern (``fakes/*.tar``), a
            folder of such files only, or one that Hugging Face's ``save_to_disk`` wrote. Where a
            tar has the folders of a layout, it is read as one that is unpacked.
        generator: The name of what made the fakes; by default the set's folder (of one file, its
            name), or with GenImage's layout the folder above ``train`` and ``val``.
        group: A regular expression with one capture group, searched in each file name (in
            containers, the names that images have in there); images for which it captures the same
            text, in the same set, are one group. By default each image is its own group.
    """

    path: str
    generator: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class ScannedImage:
    """One image of a source, in the words of a manifest."""

    path: str
    label: int
    generator: str
    split: str
    group: str


def scan_side(source: Source, root: Path, label: int) -> list[ScannedImage]:
    """Find the images of one side of a pair.

    The layout's own ``train``, ``val`` and ``test`` folders below the source set the split. ``val``
    without a ``test`` beside it is a set's held-out part (GenImage), so its images are ``test``.

    Args:
        source: The folder, and how its images are named.
        root: The folder under which ``source.path`` is.
        label: REAL or FAKE, the side that is wanted.

    Returns:
        The images, sorted by path.

    Raises:
        DataError: If the folder is missing, holds no image of the side, is ambiguous, or by its
            name is the other side; or if ``source.group`` does not match a file name.
        ConfigError: If ``source.group`` is no regular expression with one capture group.
    """
    place = _place_under(source.path, root)
    folder = root / place
    own = _last(place)
    if SIDE_LABELS.get(own, label) != label:
        raise DataError(
            f"{folder}: is the {SIDE_NAMES[1 - label]} side by its name, but stands as "
            f"{SIDE_NAMES[label]}; swap the sides or rename it"
        )
    packed = packed_files(place, root)
    if packed is not None:
        return _packed(packed, source, place, root, label)
    tree = read_tree(folder)
    sides = [side for side in tree.sides if side.label == label and side.images]
    if tree.loose:
        sides = [Side(label, own, (), tree.loose)]
    if not sides:
        raise DataError(
            f"{folder}: holds no {SIDE_NAMES[label]} images; known layouts: {KNOWN_LAYOUTS}"
        )
    set_place = _set_of(place)
    grouping = _Grouping(source.group, set_place)
    name = _last(set_place) if set_place not in {"", "."} else root.resolve().name
    images = [
        image
        for side in sides
        for image in _images(
            side, folder, place, grouping, source.generator or _generator(side, name)
        )
    ]
    return sorted(images, key=lambda image: image.path)


def scan_tree(root: Path, *, group: str | None = None, name: str | None = None) -> Manifest:
    """Recognise a whole folder tree and list its images.

    The set of an image, which is its ``dataset`` and the generator of its fakes, is the first
    folder below the root that is not ``train``, ``val`` or ``test`` (``progan`` in
    ``progan/airplane/0_real``), in GenImage's layout the last, and otherwise the root. Of a root
    that is one set, with folders for classes in it, `name` has to be given. Splits are told as in
    ``scan_side``: the held-out part of GenImage (``val``) and of CIFAKE (``test``) is ``test``.

    Args:
        root: A folder that holds sets, or a set.
        group: As in ``Source``, for all sets of the tree.
        name: What the set is called, where the root is one.

    Returns:
        The manifest, sorted by path; each image is its own group unless ``group`` is given.

    Raises:
        DataError: If the tree is empty, has none of the known layouts, or is ambiguous.
        ConfigError: If ``group`` is no regular expression with one capture group.
    """
    root = Path(root)
    tree = read_tree(root)
    if tree.loose:
        raise DataError(
            f"{root}: its images ({tree.loose[0]}) are in no known layout; "
            f"known layouts: {KNOWN_LAYOUTS}"
        )
    images: list[ScannedImage] = []
    names: list[str] = []
    for side in tree.sides:
        named = name or _generator(side, "", in_tree=True)
        own = named or root.resolve().name
        # what the root is called on this machine must not decide a split
        grouping = _Grouping(group, named)
        images += _images(side, root, "", grouping, own)
        names += [own] * len(side.images)
    order = sorted(range(len(images)), key=lambda image: images[image].path)
    return manifest_of([images[i] for i in order], [names[i] for i in order], root)


def scan_folder(root: Path, *, recursive: bool = True) -> Manifest:
    """List the images of a folder of which nothing is known; ``dataset`` is the folder's name.

    Raises:
        DataError: If the folder is missing or holds no image.
    """
    root = Path(root)
    paths = list_images(root, recursive=recursive)
    if not paths:
        deeper = "" if recursive else "; set recursive to look into its folders"
        raise DataError(f"{root}: holds no image{deeper or '; give a folder of images'}")
    dataset = root.resolve().name or "images"
    images = [ScannedImage(path, UNKNOWN, "unknown", "", path) for path in paths]
    return manifest_of(images, [dataset] * len(images), root)


def manifest_of(images: Sequence[ScannedImage], datasets: Sequence[str], root: Path) -> Manifest:
    """Make a manifest of images, column by column.

    Args:
        images: The images.
        datasets: The ``dataset`` of each.
        root: The folder under which their paths are.
    """
    columns = {
        name: pd.Series(
            datasets if name == "dataset" else [getattr(image, name) for image in images],
            dtype="int64" if name == "label" else "str",
        )
        for name in COLUMNS
    }
    return Manifest(pd.DataFrame(columns), root)


class _Grouping:
    """How the group of an image is told from its name."""

    def __init__(self, pattern: str | None, set_place: str) -> None:
        self.set_place = set_place
        # of a set outside of the root its name alone: where it lies differs between machines
        self.set_name = _last(set_place) if set_place.startswith("/") else set_place
        self.pattern = None
        if pattern is None:
            return
        try:
            self.pattern = re.compile(pattern)
        except re.error as err:
            raise ConfigError(f"group: {pattern!r} is no regular expression ({err})") from err
        if self.pattern.groups != 1:
            raise ConfigError(
                f"group: {pattern!r} has {self.pattern.groups} capture groups; it must have one, "
                "as in '(.+)_real'; write (?:...) for the others"
            )

    def group(self, path: str, name: str | None = None) -> str:
        if self.pattern is None:
            below = path.removeprefix(self.set_place)
            return path if self.set_name == self.set_place else self.set_name + below
        match = self.pattern.search(_last(path if name is None else name))
        if match is None or not match[1]:
            raise DataError(
                f"{path}: the group pattern {self.pattern.pattern!r} captures nothing in its "
                "name; make it match every file of the source"
            )
        return f"{self.set_name}:{match[1]}"


def _packed(
    files: list[tuple[str, str]], source: Source, place: str, root: Path, label: int
) -> list[ScannedImage]:
    """List the images of one side that are in containers."""
    is_folder = (root / place).is_dir()
    # The name of a pattern ends where it becomes one: ldm of ldm-*.tar, and of ldm/*.tar.
    fixed = place if is_folder else re.split(r"[*?[]|\.tar$|\.parquet$|\.arrow$", place)[0]
    set_place = _set_of(fixed.rstrip("/-_."))
    grouping = _Grouping(source.group, set_place)
    generator = source.generator or _last(set_place) or root.resolve().name
    images = [
        ScannedImage(
            path,
            label,
            "real" if label == REAL else generator,
            split or own_split,
            grouping.group(path, name),
        )
        for file, split in files
        for path, name, own_split in _of_side(packed_images(file, root), label, root / file)
    ]
    if not images:
        raise DataError(f"{root / place}: holds no {SIDE_NAMES[label]} images; name another source")
    return images


def _of_side(images: list[PackedImage], label: int, file: Path) -> Iterator[tuple[str, str, str]]:
    """Give path, name and split of the images of one side, where a container has both."""
    places = [name.split("/")[:-1] for _, name in images]
    sides = [[part for part in place if part in SIDE_LABELS][-1:] for place in places]
    if not any(sides):
        yield from ((path, name, "") for path, name in images)
        return
    if [] in sides:
        loose, _ = images[sides.index([])]
        raise DataError(
            f"{file}: has a layout's folders and images beside them ({loose}); keep one of the two "
            f"(known layouts: {KNOWN_LAYOUTS})"
        )
    folders = {"/".join(place[:depth]) for place in places for depth in range(len(place) + 1)}
    for (path, name), place, (side,) in zip(images, places, sides, strict=True):
        if SIDE_LABELS[side] == label:
            yield path, name, _split(tuple(place), folders.__contains__)


def _images(
    side: Side, folder: Path, place: str, grouping: _Grouping, generator: str
) -> list[ScannedImage]:
    split = _split(side.parts, lambda place: (folder / place).is_dir())
    generator = "real" if side.label == REAL else generator
    paths = [str(PurePosixPath(place) / image) for image in side.images]
    return [
        ScannedImage(path, side.label, generator, split, grouping.group(path)) for path in paths
    ]


def _split(parts: tuple[str, ...], is_folder: Callable[[str], bool]) -> str:
    for depth in reversed(range(len(parts))):
        if parts[depth] in SPLIT_FOLDERS:
            beside = "/".join((*parts[:depth], "test"))
            # A set that has only train and val reports its results on val.
            return "test" if parts[depth] == "val" and not is_folder(beside) else parts[depth]
    return ""


def _generator(side: Side, default: str, *, in_tree: bool = False) -> str:
    named = [part for part in side.parts if part not in SPLIT_FOLDERS]
    if not named:
        return default
    if side.name in {"nature", "ai"}:
        return named[-1]
    # Below a source, the folders between are classes of objects; below a tree's root, the sets.
    return named[0] if in_tree else default


def _place_under(path: str, root: Path) -> str:
    """Return a source's path as manifests have it: under the root wherever that can be."""
    if os.path.isabs(path):  # noqa: PTH117 - string in, string out
        inside = Path(os.path.normpath(path))
        base = Path(os.path.abspath(root))  # noqa: PTH100 - links must stay as they are named
        return (
            inside.relative_to(base).as_posix()
            if inside.is_relative_to(base)
            else inside.as_posix()
        )
    return PurePosixPath(os.path.normpath(path)).as_posix()


def _set_of(place: str) -> str:
    """Return the folder of a set, above the folders of its sides and parts."""
    path = PurePosixPath(place)
    if path.name in SIDE_LABELS:
        path = path.parent
    if path.name in SPLIT_FOLDERS:
        path = path.parent
    return path.as_posix()


def _last(path: str) -> str:
    return path.rpartition("/")[2]
