"""Splits: which groups are trained on, validated on and tested on, the same on any machine."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.errors import ConfigError, ManifestError


@dataclass(frozen=True)
class Splits:
    """How images are divided into train, val and test, and where that is kept.

    Args:
        test_fraction: The tested fraction of each dataset and class, in [0, 1].
        val_fraction: The validated fraction of what is not tested, in [0, 1).
        folder: The folder of split files; relative to the working directory.

    Raises:
        ConfigError: If a fraction is out of range.
    """

    test_fraction: float = 0.2
    val_fraction: float = 0.1
    folder: Path = Path("splits")

    def __post_init__(self) -> None:
        if not 0 <= self.test_fraction <= 1:
            raise ConfigError(f"test_fraction: must be in [0, 1], got {self.test_fraction}")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction: must be in [0, 1), got {self.val_fraction}")


DEFAULT_SPLITS: Final = Splits()


@dataclass(slots=True)
class _Group:
    """A group while splits are dealt."""

    name: str
    rows: int = 0
    split: str = ""
    touches: frozenset[tuple[str, int]] = frozenset()


def assign_splits(manifest: Manifest, splits: Splits = DEFAULT_SPLITS, *, seed: int) -> Manifest:
    """Give every image without a split one, by whole groups.

    Groups that touch the same datasets and labels form a stratum, and each stratum gives the
    fractions as nearly as whole groups allow. Within a stratum, groups are dealt in the order of
    ``sha256(seed, group)``, which depends neither on the machine nor on the order of the rows.
    Splits that are there are kept and counted; only where a stratum has training but no validation
    images does its training part give some up.

    Args:
        manifest: Images with their groups.
        splits: The fractions of each stratum.
        seed: Any integer.

    Returns:
        The same rows, each with a split.

    Raises:
        ManifestError: If a group has two splits already.
    """
    groups = _groups(manifest)
    strata: defaultdict[frozenset[tuple[str, int]], list[_Group]] = defaultdict(list)
    for group in groups.values():
        strata[group.touches].append(group)
    for members in strata.values():
        members.sort(key=lambda group: (_order(seed, group.name), group.name))
        _deal(members, splits)
    split = [groups[name].split for name in manifest.frame["group"]]
    return replace(manifest, frame=manifest.frame.assign(split=split))


def _groups(manifest: Manifest) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    frame = manifest.frame
    code, datasets = pd.factorize(frame["dataset"])
    shared: dict[frozenset[tuple[str, int]], frozenset[tuple[str, int]]] = {}
    columns = (frame["group"], code.tolist(), frame["label"].tolist(), frame["split"])
    for name, dataset, label, split in zip(*columns, strict=True):
        group = groups.get(name)
        if group is None:
            group = groups[name] = _Group(name)
        group.rows += 1
        side = (datasets[dataset], label)
        if side not in group.touches:
            touches = group.touches | {side}
            group.touches = shared.setdefault(touches, touches)
        if group.split and split and group.split != split:
            raise ManifestError(
                f"group {name!r} has two splits, {group.split!r} and {split!r}; give it one"
            )
        group.split = group.split or split
    return groups


def _order(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest()


def _deal(groups: list[_Group], splits: Splits) -> None:
    """Deal splits to the groups of one stratum, in their order."""
    total = sum(group.rows for group in groups)
    held = _rows(groups, "test")
    free = [group for group in groups if not group.split]
    for group in _choose(free, splits.test_fraction * total - held):
        group.split = "test"
    val = _rows(groups, "val")
    free = [group for group in groups if group.split == "" or (group.split == "train" and not val)]
    wanted = splits.val_fraction * (total - _rows(groups, "test")) - val
    for group in _choose(free, wanted):
        group.split = "val"
    for group in groups:
        group.split = group.split or "train"


def _rows(groups: list[_Group], split: str) -> int:
    return sum(group.rows for group in groups if group.split == split)


def _choose(groups: list[_Group], wanted: float) -> list[_Group]:
    """Choose groups, the first ones first, with as nearly ``wanted`` rows as whole groups allow."""
    chosen: list[_Group] = []
    left: list[_Group] = []
    for group in groups:
        fits = group.rows <= wanted + 1e-9
        (chosen if fits else left).append(group)
        wanted -= group.rows if fits else 0
    smallest = min(left, key=lambda group: group.rows, default=None)
    if smallest is not None and smallest.rows - wanted < wanted - 1e-9:
        chosen.append(smallest)
    return chosen
