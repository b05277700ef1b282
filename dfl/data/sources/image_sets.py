"""Image sets: folders or containers of images, and what their names tell."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.rules import COLUMNS
from dfl.data.sources.layouts import Side, read_tree
from dfl.data.sources.packed import PackedImage, packed_files, packed_images
from dfl.data.sources.words import (
    GENIMAGE,
    KNOWN_LAYOUTS,
    SIDE_LABELS,
    SIDE_NAMES,
    SPLIT_FOLDERS,
    capture_pattern,
    split_role,
)
from dfl.errors import ConfigError, DataError
from dfl.types import REAL


@dataclass
class ImageSet:
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
        shared_groups: Whether what ``group`` captures names the same thing in every set that says
            so: a prompt that several generators rendered, or a photograph that is in several sets.
    """

    path: str
    generator: str | None = None
    group: str | None = None
    shared_groups: bool = False


@dataclass(frozen=True, slots=True)
class ScannedImage:
    """One image of a set, in the words of a manifest."""

    path: str
    label: int
    generator: str
    split: str
    group: str


class Grouping:
    """How the group of an image is told from its name.

    Args:
        group: As in ``ImageSet``.
        shared: As in ``ImageSet``.
        place: The folder of the set, under the root or absolute.

    Raises:
        ConfigError: If ``group`` is no regular expression with one capture group, or missing where
            groups are shared.
    """

    def __init__(self, group: str | None, *, shared: bool, place: str) -> None:
        if shared and group is None:
            raise ConfigError(
                "shared_groups: needs group, which captures what images have in common in their "
                "names, as in '(.+)_real'"
            )
        self.pattern = None if group is None else capture_pattern(group, "group")
        self.place = place
        # of a set outside of the root its name alone: where it lies differs between machines
        self.set_name = last_part(place) if place.startswith("/") else place
        self.prefix = "" if shared else self.set_name

    def group_of(self, path: str, name: str) -> str:
        """Return the group of an image.

        Args:
            path: Its path in the manifest.
            name: The name that it has in its folder or container.

        Raises:
            DataError: If the pattern does not match.
        """
        if self.pattern is None:
            if self.set_name == self.place:
                return path
            return self.set_name + path.removeprefix(self.place)
        match = self.pattern.search(last_part(name))
        if match is None or not match[1]:
            raise DataError(
                f"{path}: the group pattern {self.pattern.pattern!r} captures nothing in its "
                "name; make it match every file of the source"
            )
        return f"{self.prefix}:{match[1]}"


def scan_side(source: ImageSet, root: Path, label: int) -> list[ScannedImage]:
    """Find the images of one side of a pair.

    The layout's own ``train``, ``val`` and ``test`` folders below the set say the split. ``val``
    without a ``test`` beside it is a set's held-out part (GenImage), so its images are ``test``.

    Args:
        source: The set, and how its images are named.
        root: The folder under which ``source.path`` is.
        label: REAL or FAKE, the side that is wanted.

    Returns:
        The images; those of folders are sorted by path.

    Raises:
        DataError: If the folder is missing, holds no image of the side, is ambiguous, or by its
            name is the other side; or if ``source.group`` does not match a file name.
        ConfigError: If ``source.group`` is no regular expression with one capture group.
    """
    place = _place_under(source.path, root)
    own = last_part(place)
    if SIDE_LABELS.get(own, label) != label:
        raise DataError(
            f"{root / place}: is the {SIDE_NAMES[1 - label]} side by its name, but stands as "
            f"{SIDE_NAMES[label]}; swap the sides or rename it"
        )
    packed = packed_files(place, root)
    set_place = _set_of(place if packed is None else _fixed_part(place, root))
    grouping = Grouping(source.group, shared=source.shared_groups, place=set_place)
    set_name = source.generator or (
        root.resolve().name if set_place == "." else last_part(set_place)
    )
    if packed is not None:
        images = [
            ScannedImage(
                path,
                label,
                "real" if label == REAL else set_name,
                split or own_split,
                grouping.group_of(path, name),
            )
            for file, split in packed
            for path, name, own_split in _of_side(packed_images(file, root), label, root / file)
        ]
        if not images:
            raise DataError(
                f"{root / place}: holds no {SIDE_NAMES[label]} images; name another source"
            )
        return images
    tree = read_tree(root / place)
    sides = [side for side in tree.sides if side.label == label and side.images]
    if tree.loose:
        sides = [Side(label, own, (), tree.loose)]
    if not sides:
        raise DataError(
            f"{root / place}: holds no {SIDE_NAMES[label]} images; known layouts: {KNOWN_LAYOUTS}"
        )
    images = []
    for side in sides:
        # the folders between are classes of objects, but for GenImage's
        generator = source.generator or (set_of_genimage(side) or set_name)
        images += images_of(side, root, place, grouping, generator)
    return sorted(images, key=lambda image: image.path)


def images_of(
    side: Side, root: Path, place: str, grouping: Grouping, generator: str
) -> list[ScannedImage]:
    """Describe the images of a side.

    Args:
        side: The side.
        root: The folder of the manifest.
        place: The folder, under the root, from which the side's paths are counted.
        grouping: Tells their groups.
        generator: What made them, where they are fakes.
    """
    split = _split_of(side.parts, lambda folder: (root / place / folder).is_dir())
    generator = "real" if side.label == REAL else generator
    return [
        ScannedImage(path, side.label, generator, split, grouping.group_of(path, path))
        for path in (str(PurePosixPath(place) / image) for image in side.images)
    ]


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


def set_of_genimage(side: Side) -> str:
    """Name the set of a side in GenImage's layout: the last folder that is no split."""
    named = [part for part in side.parts if part not in SPLIT_FOLDERS]
    return named[-1] if named and side.name in GENIMAGE else ""


def last_part(path: str) -> str:
    """Return what stands behind the last slash of a path."""
    return path.rpartition("/")[2]


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
            yield path, name, _split_of(tuple(place), folders.__contains__)


def _split_of(parts: tuple[str, ...], is_folder: Callable[[str], bool]) -> str:
    """Tell the split from the folders that a side is in."""
    for depth in reversed(range(len(parts))):
        if parts[depth] in SPLIT_FOLDERS:
            beside = "/".join((*parts[:depth], "test"))
            return split_role(parts[depth], has_test=is_folder(beside))
    return ""


def _place_under(path: str, root: Path) -> str:
    """Return a set's path as manifests have it: under the root wherever that can be."""
    if os.path.isabs(path):  # noqa: PTH117 - string in, string out
        inside = Path(os.path.normpath(path))
        base = Path(os.path.abspath(root))  # noqa: PTH100 - links must stay as they are named
        if inside.is_relative_to(base):
            inside = inside.relative_to(base)
        return inside.as_posix()
    return PurePosixPath(os.path.normpath(path)).as_posix()


def _fixed_part(place: str, root: Path) -> str:
    """Return what containers are called together: ldm for ldm-*.tar, ldm/*.tar and ldm.tar."""
    is_folder = (root / place).is_dir()
    fixed = place if is_folder else re.split(r"[*?[]|\.tar$|\.parquet$|\.arrow$", place)[0]
    return fixed.rstrip("/-_.")


def _set_of(place: str) -> str:
    """Return the folder of a set, above the folders of its sides and parts."""
    path = PurePosixPath(place)
    if path.name in SIDE_LABELS:
        path = path.parent
    if path.name in SPLIT_FOLDERS:
        path = path.parent
    return path.as_posix()
