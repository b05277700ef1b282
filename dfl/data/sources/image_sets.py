"""Image sets: folders or containers of images, and what their names tell."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from dfl.data.containers.base import ENDING
from dfl.data.sources.layouts import Side, read_tree
from dfl.data.sources.packed import packed_files, packed_images
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

    def groups(self, paths: Sequence[str], names: Sequence[str]) -> list[str]:
        """Return the groups of images.

        Args:
            paths: Their paths in the manifest.
            names: The names that they have in their folder or container.

        Raises:
            DataError: If the pattern does not match one.
        """
        if self.pattern is None:
            if self.set_name == self.place:
                return list(paths)
            return [self.set_name + path.removeprefix(self.place) for path in paths]
        groups = []
        for path, name in zip(paths, names, strict=True):
            match = self.pattern.search(last_part(name))
            if match is None or not match[1]:
                raise DataError(
                    f"{path}: the group pattern {self.pattern.pattern!r} captures nothing in its "
                    "name; make it match every file of the source"
                )
            groups.append(f"{self.prefix}:{match[1]}")
        return groups


def scan_side(source: ImageSet, root: Path, label: int) -> pd.DataFrame:
    """Find the images of one side of a pair.

    The layout's own ``train``, ``val`` and ``test`` folders below the set say the split. ``val``
    without a ``test`` beside it is a set's held-out part (GenImage), so its images are ``test``.

    Args:
        source: The set, and how its images are named.
        root: The folder under which ``source.path`` is.
        label: REAL or FAKE, the side that is wanted.

    Returns:
        The columns of a manifest but ``dataset``; images of folders are sorted by path.

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
    set_name = root.resolve().name if set_place == "." else last_part(set_place)
    if packed is not None:
        made_by = source.generator or set_name
        frames = [
            _packed_side(file, split, root, label, made_by, grouping) for file, split in packed
        ]
        if not any(map(len, frames)):
            raise DataError(
                f"{root / place}: holds no {SIDE_NAMES[label]} images; name another source"
            )
        return pd.concat(frames, ignore_index=True)
    tree = read_tree(root / place)
    sides = [side for side in tree.sides if side.label == label and side.images]
    if tree.loose:
        sides = [Side(label, own, (), tree.loose)]
    if not sides:
        raise DataError(
            f"{root / place}: holds no {SIDE_NAMES[label]} images; known layouts: {KNOWN_LAYOUTS}"
        )
    frames = [
        # the folders between are classes of objects, but for GenImage's
        side_frame(
            side, root, place, source.generator or set_of_genimage(side) or set_name, grouping
        )
        for side in sides
    ]
    return pd.concat(frames).sort_values("path", ignore_index=True)


def side_frame(
    side: Side, root: Path, place: str, generator: str, grouping: Grouping
) -> pd.DataFrame:
    """Describe the images of a side by the columns of a manifest but ``dataset``.

    Args:
        side: The side.
        root: The folder of the manifest.
        place: The folder, under the root, from which the side's paths are counted.
        generator: What made them, where they are fakes.
        grouping: Tells their groups.
    """
    paths = [str(PurePosixPath(place) / image) for image in side.images]
    split = split_of(side.parts, lambda folder: (root / place / folder).is_dir())
    return _frame(paths, paths, side.label, generator, split, grouping)


def _packed_side(
    file: str, split: str, root: Path, label: int, generator: str, grouping: Grouping
) -> pd.DataFrame:
    """Describe the images of one side in a container, which may have the folders of a layout."""
    images = packed_images(file, root)
    places = [name.split("/")[:-1] for _, name in images]
    sides = [[part for part in place if part in SIDE_LABELS][-1:] for place in places]
    splits = [split] * len(images)
    if any(sides):
        if [] in sides:
            loose, _ = images[sides.index([])]
            raise DataError(
                f"{root / file}: has a layout's folders and images beside them ({loose}); keep one "
                f"of the two (known layouts: {KNOWN_LAYOUTS})"
            )
        folders = {"/".join(place[:depth]) for place in places for depth in range(len(place) + 1)}
        kept = [row for row, (side,) in enumerate(sides) if SIDE_LABELS[side] == label]
        splits = [split or split_of(tuple(places[row]), folders.__contains__) for row in kept]
        images = [images[row] for row in kept]
    paths, names = ([image[part] for image in images] for part in (0, 1))
    return _frame(paths, names, label, generator, splits, grouping)


def _frame(
    paths: list[str],
    names: list[str],
    label: int,
    generator: str,
    split: str | list[str],
    grouping: Grouping,
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": paths,
            "label": label,
            "generator": "real" if label == REAL else generator,
            "split": split,
            "group": grouping.groups(paths, names),
        }
    )


def set_of_genimage(side: Side) -> str:
    """Name the set of a side in GenImage's layout: the last folder that is no split."""
    named = [part for part in side.parts if part not in SPLIT_FOLDERS]
    return named[-1] if named and side.name in GENIMAGE else ""


def last_part(path: str) -> str:
    """Return what stands behind the last slash of a path."""
    return path.rpartition("/")[2]


def split_of(parts: tuple[str, ...], is_folder: Callable[[str], bool]) -> str:
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
    fixed = place if is_folder else re.split(rf"[*?[]|({ENDING})$", place)[0]
    return fixed.rstrip("/-_.")


def _set_of(place: str) -> str:
    """Return the folder of a set, above the folders of its sides and parts."""
    path = PurePosixPath(place)
    if path.name in SIDE_LABELS:
        path = path.parent
    if path.name in SPLIT_FOLDERS:
        path = path.parent
    return path.as_posix()
