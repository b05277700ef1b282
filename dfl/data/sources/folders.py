"""Folders of images: trees in a layout of the field, and images of which nothing is known."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import ClassVar

import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.data.sources.image_sets import GENIMAGE, Grouping, merged, name_generators
from dfl.data.sources.layouts import (
    ANY_FOLDERS,
    Side,
    list_images,
    may_be_image,
    read_tree,
)
from dfl.data.sources.published import keep_published
from dfl.data.sources.words import KNOWN_LAYOUTS, is_content, is_set
from dfl.errors import DataError, named
from dfl.types import FAKE, REAL, UNKNOWN


@dataclass
class Tree(Source):
    """A folder tree in one of the field's layouts, recognised by itself.

    The set of an image, which is its ``dataset``, is the first folder below the root that is not
    named for a split, for all images or for a class of objects (``progan`` in
    ``train/progan/airplane/0_real``), in GenImage's layout the last, and otherwise the root. Of a
    root that is one set, with folders for classes in it, ``name`` has to be given. The generator of
    a fake is the folder below ``fake``, or the one in or around ``train``, ``val`` and ``test``, or
    the set.

    The parts that a set was published with are kept; sets without them are split. ``val`` without
    ``test`` beside it, as in GenImage, is what a set reports its results on, and becomes ``test``.
    To test on all images of a tree, set ``splits.test_fraction`` to 1, and ``splits.published`` to
    false.

    Args:
        root: A folder that holds sets, or a set; relative to the working directory.
        group: A regular expression with one capture group, searched in each file name; images of
            one set for which it captures the same text are one group. By default each image is its
            own group.
        name: What the set is called, where the root is one set with folders for classes in it.
        shared_groups: Whether what ``group`` captures names the same thing in all sets of the tree:
            a prompt that several generators rendered, or a photograph that is in several sets.
    """

    root: Path
    group: str | None = None
    name: str | None = None
    shared_groups: bool = False

    @property
    def title(self) -> str:
        """The name of the root."""
        return Path(self.root).resolve().name

    def scan(self) -> Manifest:
        """List the images, sorted by path.

        Raises:
            ConfigError: If ``group`` is no regular expression with one capture group.
            DataError: If the tree is empty, has none of the known layouts, or is ambiguous.
        """
        root = Path(self.root)
        tree = read_tree(root)
        if tree.loose:
            folders = sorted({image.rpartition("/")[0] or "." for image in tree.loose})
            raise DataError(
                f"{root}: its images ({tree.loose[0]}) are in no known layout; known layouts: "
                f"{KNOWN_LAYOUTS}; {ANY_FOLDERS}; its folders are {named(folders)}"
            )
        content = frozenset(
            name
            for side in tree.sides
            if side.label == REAL
            for names in side.folders().values()
            for name in names
        )
        notes: list[str] = list(tree.reasons)
        objects = {part for side in tree.sides for part in side.parts if is_content(part)}
        if self.name is None and any(not _dataset_of(side) for side in tree.sides) and objects:
            line = (
                f"{root}: some folders are classes of objects ({named(sorted(objects))}); what is "
                f"in no set below is called {self.title}, and name says another"
            )
            notes.append(line)
        frames = []
        between: dict[str, set[str]] = {}
        for side in tree.sides:
            name = self.name or _dataset_of(side)
            # what the root is called on this machine must not decide a split
            grouping = Grouping(self.group, shared=self.shared_groups, place=name)
            dataset = name or self.title
            generators = ["real"] * len(side.images)
            if side.label == FAKE:
                generators, said = name_generators(side, str(root), (), dataset, content)
                notes += said
                if set(generators) == {dataset} and name in side.parts:
                    inner = filter(is_set, side.parts[side.parts.index(name) + 1 :])
                    between.setdefault(dataset, set()).update(inner)
            frames.append(
                pd.DataFrame(
                    {
                        "path": side.images,
                        "label": side.label,
                        "dataset": dataset,
                        "generator": generators,
                        "split": "",
                        "group": grouping.groups(side.images, side.images),
                    }
                )
            )
        for dataset, inner_folders in between.items():
            notes += merged(f"{root}: folders in {dataset}/", inner_folders, dataset)
        frame, said = keep_published(pd.concat(frames).sort_values("path"), root)
        return Manifest.from_frame(frame, root, notes=(*notes, *said))


def _dataset_of(side: Side) -> str:
    """Name the set of a side; empty where it is the root."""
    sets = [part for part in side.parts if is_set(part)]
    if not sets:
        return ""
    return sets[-1] if side.name.lower() in GENIMAGE else sets[0]


@dataclass
class Folder(Source):
    """Images of which nothing is known, to be scored or exported: a folder of them, or files.

    Args:
        root: A folder, an image, a pattern (``photos/*.jpg``), or a list of these; relative to the
            working directory.
        recursive: Whether folders in a folder are looked into.
    """

    is_split: ClassVar[bool] = False

    root: Path | list[Path]
    recursive: bool = True

    @property
    def title(self) -> str:
        """The name of the folder, which is the ``dataset`` of its images."""
        places = self.root if isinstance(self.root, list) else [Path(self.root)]
        is_one = len(places) == 1 and places[0].is_dir()
        return (is_one and places[0].resolve().name) or "images"

    def scan(self) -> Manifest:
        """List the images: those of a folder sorted by path, files in the order given.

        Raises:
            DataError: If a folder or file is missing, or there is no image.
        """
        places = self.root if isinstance(self.root, list) else [Path(self.root)]
        root, paths = find_images(places, recursive=self.recursive)
        if not paths:
            deeper = "" if self.recursive else "; set recursive to look into its folders"
            where = named([str(place) for place in places])
            raise DataError(f"{where}: holds no image{deeper or '; give a folder of images'}")
        known = {"label": UNKNOWN, "dataset": self.title, "generator": "unknown", "split": ""}
        return Manifest.from_frame(pd.DataFrame({"path": paths, "group": paths} | known), root)

    def advice(self, split: str) -> str:
        """Say that there is no other use for them."""
        return f"{self.title} is a folder without labels, which can only be predicted"


def find_images(places: Sequence[Path], *, recursive: bool = True) -> tuple[Path, list[str]]:
    """List images by files, by folders that hold them, and by patterns.

    Args:
        places: Which; a pattern has ``*``, ``?`` or ``[...]``, and ``**`` for folders in folders.
        recursive: Whether folders in a folder are looked into.

    Returns:
        The folder under which their paths are, and the paths, each once: a single folder and the
        paths in it; otherwise the working directory, and paths that begin as they were given.

    Raises:
        DataError: If one is missing, or is not named as an image; all such are named.
    """
    if len(places) == 1 and places[0].is_dir():
        return places[0], list_images(places[0], recursive=recursive)
    found: list[str] = []
    missing: list[str] = []
    others: list[str] = []
    for place in places:
        if place.is_dir():
            images = list_images(place, recursive=recursive)
            found += [(place / image).as_posix() for image in images]
        elif os.path.lexists(place):
            (found if may_be_image(place.name) else others).append(place.as_posix())
        elif matched := sorted(map(Path, glob(str(place), recursive=True))):  # noqa: PTH207
            files = [path for path in matched if not path.is_dir() and may_be_image(path.name)]
            found += [path.as_posix() for path in files]
        else:
            missing.append(place.as_posix())
    if missing:
        raise DataError(
            f"{named(missing)}: no such file or folder; give images, folders of them, or patterns "
            "such as 'photos/*.jpg'"
        )
    if others:
        raise DataError(f"{named(others)}: not named as an image; give images or folders of them")
    return Path(), list(dict.fromkeys(found))
