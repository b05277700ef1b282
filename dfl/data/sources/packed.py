"""Containers in a folder: which there are, and which images are in them."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from dfl.data.containers.base import CONTAINER_ENDINGS, SEPARATOR
from dfl.data.containers.tar import members_of
from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.data.sources.fields import Fields, Records, records_manifest
from dfl.data.sources.layouts import list_images, may_be_image
from dfl.data.sources.published import keep_published
from dfl.data.sources.saved_datasets import is_saved, saved_splits, split_roles
from dfl.data.sources.table_records import table_images
from dfl.errors import DataError

WILD: Final = frozenset("*?[")


class PackedFiles(Source):
    """Files below a folder, each with many images and what is said of them.

    A dataclass derived from it says which fields a config has.

    Attributes:
        root: The folder.
        files: The files, or patterns of them.
        image: Which part of a record is the image; told by itself where that is None.
        fields: Which parts say what an image is.
        name: The dataset's name; None for the folder's.
    """

    root: Path
    files: list[str]
    image: str | None
    fields: Fields
    name: str | None

    @abstractmethod
    def records(self, file: Path, name: str, fields: Fields) -> Records:
        """List the images of a file.

        Args:
            file: The file.
            name: What a manifest calls it.
            fields: Which parts say what an image is.
        """

    def told(self, files: Sequence[Path]) -> Fields:
        """Give the fields, with those that the files tell by themselves.

        Args:
            files: The files.
        """
        return self.fields

    @property
    def title(self) -> str:
        """The dataset's name."""
        return self.name or Path(self.root).resolve().name or "images"

    def scan(self) -> Manifest:
        """List the images, in the order of the files."""
        root = Path(self.root)
        files = find_files(root, self.files)
        fields = self.told([root / file for file in files])
        records = (self.records(root / file, file, fields) for file in files)
        is_named = self.name is not None
        found = records_manifest(records, fields, dataset=self.title, root=root, is_named=is_named)
        frame, notes = keep_published(found.frame, root)
        return replace(found, frame=frame, notes=(*found.notes, *notes))


def find_files(root: Path, patterns: Sequence[str]) -> list[str]:
    """List the files that patterns name, each once, sorted.

    Args:
        root: The folder under which they are.
        patterns: Names, or patterns with ``*``, ``?``, ``[...]`` and ``**``.

    Returns:
        POSIX paths under the root.

    Raises:
        DataError: If there is none for a pattern.
    """
    found: set[str] = set()
    for pattern in patterns:
        if os.path.isabs(pattern):  # noqa: PTH117 - string in, string out
            raise DataError(f"{pattern}: must be under the root {root}; make it relative to it")
        try:
            files = [file for file in root.glob(pattern) if file.is_file()]
        except ValueError as err:  # no file name, or "**" as a part of one
            raise DataError(f"{pattern!r}: is no pattern of file names ({err})") from err
        if not files:
            raise DataError(f"{root / pattern}: no such file; files are looked for under the root")
        found.update(file.relative_to(root).as_posix() for file in files)
    return sorted(found)


def packed_files(place: str, root: Path) -> list[str] | None:
    """List the containers of a source.

    Args:
        place: A container, a pattern of containers, a folder that ``save_to_disk`` wrote, or a
            folder that has containers in or below it and no image; under the root unless it is
            absolute.
        root: The folder.

    Returns:
        Each container under the root; None for a folder of images.

    Raises:
        DataError: If there is none for a pattern, or a saved dataset is damaged.
    """
    if WILD & set(place) and not (root / place).exists():
        if not place.endswith(CONTAINER_ENDINGS):
            return None
        return find_files(root, [place])
    path = root / place
    if place.endswith(CONTAINER_ENDINGS) and path.is_file():
        return [place]
    if is_saved(path):
        splits = saved_splits(path)
        split_roles(list(splits), str(path))
        files = [file for each in splits.values() for file in each]
        return [(PurePosixPath(place) / file).as_posix() for file in files]
    if not path.is_dir():
        return None
    below = (
        Path(folder, name).relative_to(path).as_posix()
        for folder, _, names in os.walk(path)
        for name in names
        if name.endswith(CONTAINER_ENDINGS)
    )
    packed = sorted(name for name in below if not is_hidden(name))
    if not packed or list_images(path):
        return None
    return [(PurePosixPath(place) / name).as_posix() for name in packed]


def packed_images(name: str, root: Path) -> list[tuple[str, str]]:
    """List the images of a container whatever else is known of them.

    Args:
        name: The container, under the root.
        root: The folder.

    Returns:
        The path of each in a manifest, and the name that the image itself has, in the container's
        order; the name of one in a table is empty if none is kept.

    Raises:
        DataError: If the container is damaged or has no column of images.
    """
    file = root / name
    if name.endswith(".tar"):
        members = [member for member, _, _ in members_of(file) if not is_hidden(member)]
        images = [member for member in members if may_be_image(member.rpartition("/")[2])]
        return [(f"{name}{SEPARATOR}{member}", member) for member in images]
    return table_images(file, name)


def is_hidden(member: str) -> bool:
    """Tell from the name of a tar's member whether a system has put it there."""
    return any(part.startswith((".", "__")) for part in member.split("/"))
