"""Image sets: folders or containers of images, and what their names tell."""

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal, NamedTuple

import pandas as pd

from dfl.data.containers.base import CONTAINER_ENDINGS, ENDING, SEPARATOR
from dfl.data.sources.layouts import (
    ANY_FOLDERS,
    Side,
    find_sides,
    list_images,
    refuse_other_side,
)
from dfl.data.sources.packed import packed_files, packed_images
from dfl.data.sources.words import (
    KNOWN_LAYOUTS,
    SIDE_NAMES,
    SIDES,
    capture_pattern,
    is_content,
    is_family,
    is_set,
    says_class,
    says_no_more,
    split_word,
    words_of,
)
from dfl.errors import ConfigError, DataError, named
from dfl.types import FAKE

GENIMAGE: Final = ("nature", "ai")
MOST_GENERATORS: Final = 100
"""More folders than these below a side are what its images show, and no generators."""


@dataclass
class ImageSet:
    """One image set on one side of a pair.

    Args:
        path: The folder, under the root: the side itself, or a set with the folders of a layout, of
            which those of the wanted side are taken (``imagenet`` with ``0_real`` in it). Or where
            the side is packed: a ``.tar`` or ``.parquet`` file, a pattern (``fakes/*.tar``), a
            folder of such files only, or one that Hugging Face's ``save_to_disk`` wrote. Where a
            tar has the folders of a layout, it is read as one that is unpacked.
        generator: The name of what made the fakes; by default the folders below the side
            (``fake/sdxl``) or those that parts of it are in (``test/biggan``, ``sdxl/train2017``),
            and where there are none, the set's folder (of one file, its name).
        group: A regular expression with one capture group, searched in each file name (in
            containers, the names that images have in there); images for which it captures the same
            text, in the same set, are one group. By default each image is its own group.
        shared_groups: Whether what ``group`` captures names the same thing in every set that says
            so: a prompt that several generators rendered, or a photograph that is in several sets.
        split: The split of all its images; by default what the names of its folders and containers
            say, and where they say nothing, they are dealt one.
    """

    path: str
    generator: str | None = None
    group: str | None = None
    shared_groups: bool = False
    split: Literal["train", "val", "test"] | None = None


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


class FoundSide(NamedTuple):
    """One side of a pair.

    Attributes:
        frame: The columns of a manifest but ``dataset``, and those that `keep_published` takes.
        notes: What there is to say of it.
        folders: The names of the folders below the side.
    """

    frame: pd.DataFrame
    notes: list[str]
    folders: frozenset[str]


def scan_side(
    source: ImageSet, root: Path, label: int, content: frozenset[str] = frozenset()
) -> FoundSide:
    """Find the images of one side of a pair.

    Args:
        source: The set, and how its images are named.
        root: The folder under which ``source.path`` is.
        label: REAL or FAKE, the side that is wanted.
        content: Names of folders that tell what images show, and no generator: those of the real
            side.

    Returns:
        The images, those of folders sorted by path, those of a container in its order.

    Raises:
        DataError: If the folder is missing, holds no image of the side, is ambiguous, or by its
            name is the other side; or if ``source.group`` does not match a file name.
        ConfigError: If ``source.group`` is no regular expression with one capture group.
    """
    place = _place_under(source.path, root)
    own = last_part(place)
    if SIDES.get(own.lower(), label) != label:
        raise DataError(
            f"{root / place}: is the {SIDE_NAMES[1 - label]} side by its name, but stands as "
            f"{SIDE_NAMES[label]}; swap the sides or rename it"
        )
    packed = packed_files(place, root)
    set_place = _set_of(place if packed is None else _fixed_part(place, root))
    grouping = Grouping(source.group, shared=source.shared_groups, place=set_place)
    set_name = root.resolve().name if set_place == "." else last_part(set_place)
    above = (own,) if split_word(own) else ()
    notes: list[str] = []
    if packed is None:
        names = list_images(root / place)
        units = {place: [(str(PurePosixPath(place) / name), name) for name in names]}
    else:
        units = {file: packed_images(file, root) for file in packed}
        if label == FAKE and source.generator is None:
            stems = {_without_number(last_part(file)) for file in packed}
            notes += merged(f"{place}: its files", stems, set_name)
    frames: list[pd.DataFrame] = []
    folders: set[str] = set()
    for unit, images in units.items():
        sides, reasons = _sides_in([name for _, name in images], own, unit, root, label)
        folders.update(*(names for side in sides for names in side.folders().values()))
        if label == FAKE and source.generator is None:
            made_by, said = _name_all(sides, unit, above, set_name, content)
            notes += reasons + said
        else:
            maker = source.generator if label == FAKE and source.generator else "real"
            made_by = {image: maker for side in sides for image in side.images}
            notes += reasons
        frame = _frame(unit, images, made_by, label, grouping)
        is_outside = place.startswith("/")
        within = place if packed is None or unit.startswith(f"{place}/") else parent_of(unit)
        frames.append(
            frame.assign(split=source.split or "", outside=len(within) if is_outside else 0)
        )
    if not any(map(len, frames)):
        holds = f"{root / place}: holds no {SIDE_NAMES[label]} images; "
        if packed is not None:
            raise DataError(f"{holds}name another source")
        raise DataError(f"{holds}known layouts: {KNOWN_LAYOUTS}; {ANY_FOLDERS}")
    return FoundSide(pd.concat(frames, ignore_index=True), notes, frozenset(folders))


def _name_all(
    sides: Sequence[Side],
    place: str,
    above: Sequence[str],
    set_name: str,
    content: frozenset[str],
) -> tuple[dict[str, str], list[str]]:
    """Name what made each image of the fake sides in a folder or container."""
    made_by: dict[str, str] = {}
    notes: list[str] = []
    for side in sides:
        makers, said = name_generators(side, place, above, set_name, content)
        made_by |= dict(zip(side.images, makers, strict=True))
        notes += said
    if set(made_by.values()) == {set_name}:
        between = {side.parts[0] for side in sides if side.parts and is_set(side.parts[0])}
        notes += merged(f"{place}: its folders", between, set_name)
    return made_by, notes


def name_generators(
    side: Side, place: str, above: Sequence[str], set_name: str, content: frozenset[str]
) -> tuple[list[str], list[str]]:
    """Name what made each image of a fake side.

    It is the first folder below the side that has a name of its own, where the side is called for
    its class or there are several; otherwise what the side's name says, the folder that a part of a
    set is in or that is in a part, or the set.

    Args:
        side: The side.
        place: The folder or container that its own folders are counted from.
        above: The name of that, where it is a part of sets and no set.
        set_name: What the set is called.
        content: Names of folders that tell what images show: those of the real side.

    Returns:
        A name for each image, and what there is to say where they cannot be told apart.
    """
    folders = side.folders()
    own = {
        folder: _without_family([n for n in names if _is_own(n) and n not in content])
        for folder, names in folders.items()
    }
    first = {names[0] for names in own.values() if names}
    found = side.generator or set_of((*above, *side.parts), side.name) or set_name
    fewest = 1 if says_class(side.name) else 2
    notes: list[str] = []
    place = "/".join((place, *side.parts, *([side.name] if side.depth else [])))
    if fewest <= len(first) <= MOST_GENERATORS:
        made_by = {folder: names[0] if names else found for folder, names in own.items()}
        inside = {(names[0], names[1]) for names in own.values() if len(names) > 1}
        # what is in several of them is what their images show
        times = Counter(name for _, name in inside)
        for generator in sorted(first):
            names = {name for each, name in inside if each == generator and times[name] == 1}
            notes += merged(f"{place}/{generator}: its folders", names, generator)
    else:
        if len(first) > MOST_GENERATORS:
            notes += merged(f"{place}: its folders", first, found)
        shared = {name for names in folders.values() for name in names if _is_own(name)} & content
        notes += merged(f"{place}: its folders that the real side has as well", shared, found)
        made_by = {
            folder: "" if side.depth else set_of((*above, *names), side.name)
            for folder, names in folders.items()
        }
    return [made_by[parent_of(image)] or found for image in side.images], notes


def set_of(parts: Sequence[str], side: str) -> str:
    """Name the set of which folders are a part.

    It is the first folder in a part that is called for a split (``test/biggan``), otherwise the one
    that the part is in (``sdxl/train2017``), and in GenImage's layout always the last.

    Args:
        parts: The folders that a side is in.
        side: The name of the side.

    Returns:
        The name; empty where there is no such part.
    """
    sets = [depth for depth, part in enumerate(parts) if is_set(part)]
    part_at = next((depth for depth, part in enumerate(parts) if split_word(part)), None)
    if part_at is None:
        return parts[sets[-1]] if sets and side.lower() in GENIMAGE else ""
    inside = [depth for depth in sets if depth > part_at]
    chosen = inside[:1] or sets[-1:]
    return parts[chosen[0]] if chosen else ""


def merged(what: str, names: Collection[str], generator: str) -> list[str]:
    """Say that images of several names count as of one generator."""
    if len(names) < 2:
        return []
    line = (
        f"{what} ({named(sorted(names))}) count as one generator, {generator}; to tell them "
        "apart, name each as a set of a pair"
    )
    return [line]


def _without_family(names: list[str]) -> list[str]:
    return names[1:] if len(names) > 1 and is_family(names[0]) else names


def _is_own(name: str) -> bool:
    return not (says_no_more(name) or is_content(name))


def _without_number(file: str) -> str:
    """Return the name of a container without its ending, number and split."""
    stem = file.rpartition(".")[0]
    return " ".join(
        word for word in words_of(re.sub(r"\d+-of-\d+$|\d+$", "", stem)) if not split_word(word)
    )


def _sides_in(
    names: Sequence[str], own: str, unit: str, root: Path, label: int
) -> tuple[list[Side], list[str]]:
    """Find the sides of one class among images of a folder or a container."""
    if own.lower() in SIDES:
        side = Side(label, own, (), list(names))
        refuse_other_side(side, str(root / unit))
        return [side] if names else [], []
    within = f"{unit}{SEPARATOR}" if unit.endswith(CONTAINER_ENDINGS) else ""
    tree = find_sides(names, str(root / unit), within=within)
    if tree.loose:
        return [Side(label, own, (), tree.loose)], []
    return [side for side in tree.sides if side.label == label], tree.reasons


def _frame(
    unit: str,
    images: Sequence[tuple[str, str]],
    made_by: Mapping[str, str],
    label: int,
    grouping: Grouping,
) -> pd.DataFrame:
    """Describe the images of a side in one folder or container, in the order in which they are."""
    kept = [(path, name) for path, name in images if name in made_by]
    paths, names = [path for path, _ in kept], [name for _, name in kept]
    is_container = unit.endswith(CONTAINER_ENDINGS)
    if is_container:
        folders = [f"{unit}{SEPARATOR}{parent_of(name)}" for name in names]
    else:
        folders = [parent_of(path) for path in paths]
    return pd.DataFrame(
        {
            "path": paths,
            "label": label,
            "generator": [made_by[name] for name in names],
            "group": grouping.groups(paths, names),
            "folder": folders,
        }
    )


def parent_of(path: str) -> str:
    """Return what stands before the last slash of a path."""
    return path.rpartition("/")[0]


def last_part(path: str) -> str:
    """Return what stands behind the last slash of a path."""
    return path.rpartition("/")[2]


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
    if path.name.lower() in SIDES:
        path = path.parent
    if split_word(path.name):
        path = path.parent
    return path.as_posix()
