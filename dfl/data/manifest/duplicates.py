"""Identical files: the same content under two names is one image, and must not be on two sides."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.data.containers.base import place_of
from dfl.data.containers.content import content_hash, size_of
from dfl.data.manifest.manifest import Manifest
from dfl.errors import DataError, ManifestError
from dfl.threads import in_threads
from dfl.types import FAKE, REAL

logger = logging.getLogger(__name__)

PROBE_BYTES: Final = 4096
KEY_BYTES: Final = 32  # of a SHA-256
THREADS: Final = 8  # reading waits for the disk, not for a core
STRICTNESS: Final = {"train": 0, "val": 1, "test": 2}

Numbers = npt.NDArray[np.int64]


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


def find_identical(files: Sequence[Path]) -> list[list[int]]:
    """Find files of the same content.

    A file is read only if another has its size, and read whole only if that one has the same bytes
    in the middle as well: a large set costs little more than its listing. Images in a tar are read
    if others have their size; those in tables tell no size, so each is read once.

    Args:
        files: Files, or places in containers, each named once.

    Returns:
        For each content that is there more than once, the positions of its files, ascending.

    Raises:
        DataError: If a file cannot be read.
    """
    return _find(len(files), files.__getitem__)


def join_identical(manifest: Manifest) -> Manifest:
    """Put identical files, and the groups they are in, into one group.

    Where the joined group already has two splits, it goes to the one that is never trained on, and
    a warning says how many images moved.

    Raises:
        ManifestError: If a real and a fake image are the same file or have the same content.
        DataError: If a file cannot be read.
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
    for members in _find(len(paths), lambda member: manifest.resolve(paths[member])):
        _refuse_two_sides({paths[member]: int(labels[member]) for member in members}, manifest.root)
        for member in members[1:]:
            groups.join(own[members[0]], own[member])
    if groups:
        frame = frame.assign(group=[groups.find(group) for group in frame["group"]])
    return replace(manifest, frame=_settle(frame))


def _refuse_two_sides(labels: dict[str, int], root: Path) -> None:
    sides = {label: name for name, label in reversed(labels.items())}
    if REAL in sides and FAKE in sides:
        raise ManifestError(
            f"{root / sides[REAL]} (real) and {root / sides[FAKE]} (fake) have the same content; "
            "remove one of them"
        )


def _settle(frame: pd.DataFrame) -> pd.DataFrame:
    """Give each group one of the splits that its images have, the strictest."""
    given = frame[frame["split"] != ""]
    rank = given["split"].map(STRICTNESS)
    strictest = rank.groupby(given["group"]).transform("max")
    moved = strictest != rank
    if not moved.any():
        return frame
    logger.warning(
        "%d images are identical to an image of a stricter split and were moved there", moved.sum()
    )
    names = dict(zip(STRICTNESS.values(), STRICTNESS, strict=True))
    return frame.assign(split=strictest.map(names).reindex(frame.index, fill_value=""))


def _find(count: int, file_of: Callable[[int], Path]) -> list[list[int]]:
    """Find files of the same content; a million of them are numbers here, and never paths."""
    members = np.arange(count)
    sized = _divide(members, np.zeros_like(members), file_of, _size)
    is_packed = np.array([place_of(file_of(member)) is not None for member in sized[0]], dtype=bool)
    packed = np.isin(sized[1], sized[1][is_packed])
    probed = _divide(sized[0][~packed], sized[1][~packed], file_of, _probe)
    # The sets that are left are of other numbers than the packed ones.
    left = np.concatenate([probed[0], sized[0][packed]])
    numbers = np.concatenate([probed[1], sized[1][packed] + len(probed[0])])
    found, number = _divide(left, numbers, file_of, _content)
    return sorted(part.tolist() for part in np.split(found, _starts(number)[1:]) if len(part))


def _divide(
    members: Numbers,
    sets: Numbers,
    file_of: Callable[[int], Path],
    key: Callable[[Path], bytes],
) -> tuple[Numbers, Numbers]:
    """Divide sets of files by a property, and keep the parts of two or more.

    Args:
        members: The files, those of one set ascending.
        sets: The number of the set of each.
        file_of: Gives a file.
        key: The property, of ``KEY_BYTES``.

    Returns:
        The files that are kept, part by part, and the numbers of their parts from 0.
    """
    keys = np.empty((len(members), KEY_BYTES // 8), dtype=np.uint64)
    files = (file_of(member) for member in members.tolist())
    values = in_threads(
        key, files, threads=THREADS, what="look for identical images", total=len(members)
    )
    try:
        for row, value in enumerate(values):
            keys[row] = np.frombuffer(value, dtype=np.uint64)
    except OSError as err:
        raise DataError(f"{err.filename}: cannot be read ({err.strerror})") from err
    order = np.lexsort((members, *keys.T, sets))
    starts = _starts(sets[order], *keys[order].T)
    sizes = np.diff(starts, append=len(order))
    kept = np.repeat(sizes > 1, sizes)
    return members[order][kept], np.repeat(np.arange(len(sizes)), sizes)[kept]


def _starts(*columns: npt.NDArray[np.integer]) -> Numbers:
    """Find where runs of equal rows begin."""
    starts = np.ones(len(columns[0]), dtype=bool)
    starts[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.flatnonzero(starts)


def _size(file: Path) -> bytes:
    return size_of(file).to_bytes(KEY_BYTES, "little")


def _probe(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size // 2 - PROBE_BYTES // 2))
        return blake2b(stream.read(PROBE_BYTES), digest_size=KEY_BYTES).digest()


def _content(file: Path) -> bytes:
    return bytes.fromhex(content_hash(file))
