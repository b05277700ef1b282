"""Identical files: the same content under two names is one image, and must not be on two sides."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pandas as pd

from dfl.data.containers.base import place_of
from dfl.data.containers.content import content_hash, size_of
from dfl.data.manifest.manifest import Manifest, write_table
from dfl.errors import MOST_NAMED, DataError, ManifestError, named
from dfl.threads import in_threads
from dfl.types import FAKE, REAL

logger = logging.getLogger(__name__)

PROBE_BYTES: Final = 4096
THREADS: Final = 8  # reading waits for the disk, not for a core
STRICTNESS: Final = {"train": 0, "val": 1, "test": 2}

T = TypeVar("T")


class UnionFind:
    """Disjoint sets of strings, each named by its smallest member."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, item: str) -> str:
        """Return the name of the set that ``item`` is in."""
        root = item
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while (parent := self._parent.get(item, item)) != root:
            self._parent[item] = root
            item = parent
        return root

    def join(self, first: str, second: str) -> None:
        """Make one set of the two that the items are in."""
        small, large = sorted((self.find(first), self.find(second)))
        if small != large:
            self._parent[large] = small

    def __bool__(self) -> bool:
        """Whether any items were joined."""
        return bool(self._parent)


def find_identical(paths: Sequence[str | Path], root: str | Path = "") -> list[list[int]]:
    """Find files of the same content.

    A file is read only if another has its size, and read whole only if that one has the same bytes
    in the middle as well: a large set costs little more than its listing. Images in a tar are read
    if others have their size; those in tables tell no size, so each is read once.

    Args:
        paths: Files, or places in containers, each named once.
        root: The folder under which relative ones are.

    Returns:
        For each content that is there more than once, the positions of its files, ascending.

    Raises:
        DataError: If a file cannot be read.
    """

    def look(property_of: Callable[[Path], T], members: Sequence[int]) -> Iterator[T]:
        # a million paths are never objects at once
        files = (Path(root, paths[member]) for member in members)
        what = "look for identical images"
        return in_threads(property_of, files, threads=THREADS, what=what, total=len(members))

    try:
        every = range(len(paths))
        left = pd.DataFrame({"size": np.fromiter(look(size_of, every), np.int64, len(every))})
        left = left[left.duplicated(keep=False)]
        is_packed = [place_of(paths[member]) is not None for member in left.index]
        packed = pd.Series(is_packed, left.index, dtype=bool)
        plain = left.index[~packed.groupby(left["size"]).transform("any")].tolist()
        left["probe"] = np.uint64(0)
        left.loc[plain, "probe"] = np.fromiter(look(_probe, plain), np.uint64, len(plain))
        left = left[left.duplicated(keep=False)]
        left["content"] = list(look(content_hash, left.index.tolist()))
    except OSError as err:
        raise DataError(f"{err.filename}: cannot be read ({err.strerror})") from err
    left = left[left.duplicated("content", keep=False)]
    return [members.tolist() for members in left.groupby("content", sort=False).groups.values()]


class SameContentError(ManifestError):
    """A real and a fake image with the same content.

    Attributes:
        path: One of them, as the manifest has it.
    """

    path: str = ""


def join_identical(
    manifest: Manifest, *, conflicts: Path | None = None, skip: bool = False
) -> Manifest:
    """Put identical files, and the groups they are in, into one group.

    Where the joined group already has two splits, it goes to the one that is never trained on, and
    a warning says how many images moved.

    Args:
        manifest: The images.
        conflicts: A ``.csv`` file for a table of the images whose content is real and fake; it is
            written where they are left out, or are too many to be named.
        skip: Whether to leave those images out.

    Raises:
        SameContentError: If real and fake images have the same content, and are not left out.
        DataError: If a file cannot be read, or all images would be left out.
    """
    frame = manifest.frame
    again = frame.duplicated("path")
    unique = frame[~again] if again.any() else frame
    paths, labels, own = unique["path"].tolist(), unique["label"].to_numpy(), unique["group"].array
    groups = UnionFind()
    if again.any():
        image_of_row, _ = pd.factorize(frame["path"])
        for first, group in zip(own.take(image_of_row), frame["group"], strict=True):
            groups.join(first, group)
    both: list[list[int]] = []
    for members in find_identical(paths, manifest.root):
        if {REAL, FAKE} <= set(labels[members].tolist()):
            both.append(members)
            continue
        for member in members[1:]:
            groups.join(own[members[0]], own[member])
    if both:
        rows = [(number, member) for number, members in enumerate(both) for member in members]
        table = unique.iloc[[member for _, member in rows]][["path", "label"]].reset_index(
            drop=True
        )
        table["content"] = [number for number, _ in rows]
        frame = _without_conflicts(manifest, table, conflicts, skip=skip)
    elif skip and conflicts is not None:
        conflicts.unlink(missing_ok=True)
    if groups:
        frame = frame.assign(group=[groups.find(group) for group in frame["group"]])
    return replace(manifest, frame=_settle(frame))


def _without_conflicts(
    manifest: Manifest, table: pd.DataFrame, file: Path | None, *, skip: bool
) -> pd.DataFrame:
    """Leave out images whose content is of both classes, or refuse them."""
    contents = table["content"].nunique()
    if file is not None and (skip or contents > MOST_NAMED):
        write_table(table, file)
    listed = "" if file is None else f", listed in {file}"
    if skip:
        kept = manifest.frame[~manifest.frame["path"].isin(table["path"])]
        if kept.empty:
            raise DataError(
                f"{manifest.root}: each of its images is there as real and as fake{listed}; give "
                "the classes other images"
            )
        logger.warning(
            "left out %d images whose content is there as real and as fake%s", len(table), listed
        )
        return kept.reset_index(drop=True)
    first = table[table["content"] < MOST_NAMED]
    sides = {
        label: first[first["label"] == label].groupby("content")["path"].first()
        for label in (REAL, FAKE)
    }
    pairs = [
        f"{manifest.root / real} (real) and {manifest.root / fake} (fake)"
        for real, fake in zip(sides[REAL], sides[FAKE], strict=True)
    ]
    error = SameContentError(
        f"{named(pairs, contents, separator='; ')}{listed if contents > MOST_NAMED else ''} have "
        "the same content; remove one of them, or set on_label_conflict to skip, which leaves both "
        "out"
    )
    error.path = str(sides[REAL].iloc[0])
    raise error


def _settle(frame: pd.DataFrame) -> pd.DataFrame:
    """Give each group one of the splits that its images have, the strictest."""
    given = frame[frame["split"] != ""]
    rank = given["split"].map(STRICTNESS)
    strictest = rank.groupby(given["group"]).transform("max")
    moved = strictest != rank
    if not moved.any():
        return frame
    logger.warning(
        "%d images are identical to, or in one group with, an image of a stricter split and were "
        "moved there",
        moved.sum(),
    )
    names = dict(zip(STRICTNESS.values(), STRICTNESS, strict=True))
    return frame.assign(split=strictest.map(names).reindex(frame.index, fill_value=""))


def _probe(file: Path) -> int:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size // 2 - PROBE_BYTES // 2))
        digest = blake2b(stream.read(PROBE_BYTES), digest_size=8).digest()
    return int.from_bytes(digest, "big")
