"""Splits: which groups are trained on, validated on and tested on, the same on any machine."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.rules import refuse_two
from dfl.errors import ConfigError

Numbers = npt.NDArray[np.int64]
NAMES: Final = np.array(["train", "val", "test", ""], dtype=object)
TRAIN, VAL, TEST, NONE = range(4)


@dataclass(frozen=True)
class Splits:
    """How images are divided into train, val and test, and where that is kept.

    Args:
        test_fraction: The tested fraction of each dataset and class, in [0, 1].
        val_fraction: The validated fraction of what is not tested, in [0, 1).
        folder: The folder of split files; relative to the working directory.
        published: Whether the splits that images come with are kept; false deals all anew.

    Raises:
        ConfigError: If a fraction is out of range.
    """

    test_fraction: float = 0.2
    val_fraction: float = 0.1
    folder: Path = Path("splits")
    published: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.test_fraction <= 1:
            raise ConfigError(f"test_fraction: must be in [0, 1], got {self.test_fraction}")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction: must be in [0, 1), got {self.val_fraction}")


DEFAULT_SPLITS: Final = Splits()


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
    frame = manifest.frame
    group, names = pd.factorize(frame["group"])
    refuse_two(frame[frame["split"] != ""], "group", "split", "manifest")
    dealt = np.full(len(names), NONE)
    for number, split in enumerate(NAMES[:NONE]):
        dealt[group[frame["split"] == split]] = number
    sizes = np.bincount(group)
    order = _order(seed, names)
    stratum = _strata(frame, group)[order]
    for number in range(stratum.max(initial=-1) + 1):
        members = order[stratum == number]
        dealt[members] = _deal(dealt[members], sizes[members], splits)
    return replace(manifest, frame=frame.assign(split=NAMES[dealt[group]]))


def _strata(frame: pd.DataFrame, group: Numbers) -> Numbers:
    """Number the sets of datasets and labels that groups touch."""
    stratum = np.zeros(group.max(initial=-1) + 1, dtype=np.int64)
    sides = frame.groupby(["dataset", "label"]).ngroup().to_numpy()
    for side in range(sides.max(initial=-1) + 1):
        touched = np.zeros(len(stratum), dtype=np.int64)
        touched[group[sides == side]] = 1
        stratum, _ = pd.factorize(2 * stratum + touched)
    return stratum


def _order(seed: int, names: Iterable[str]) -> Numbers:
    """Return the order in which groups are dealt."""
    digests = bytearray()
    for name in names:
        digests += hashlib.sha256(f"{seed}:{name}".encode()).digest()
    parts = np.frombuffer(digests, dtype=">u8").reshape(-1, 4)
    return np.lexsort(parts.T[::-1])


def _deal(dealt: Numbers, sizes: Numbers, splits: Splits) -> Numbers:
    """Deal splits to the groups of one stratum, in their order.

    Args:
        dealt: The split that each has, ``NONE`` where there is none.
        sizes: How many images each has.
        splits: The fractions.
    """
    dealt = dealt.copy()
    total, held = sizes.sum(), sizes[dealt == TEST].sum()
    free = np.flatnonzero(dealt == NONE)
    dealt[free[_choose(sizes[free], splits.test_fraction * total - held)]] = TEST
    tested, val = sizes[dealt == TEST].sum(), sizes[dealt == VAL].sum()
    free = np.flatnonzero((dealt == NONE) | ((dealt == TRAIN) & (val == 0)))
    dealt[free[_choose(sizes[free], splits.val_fraction * (total - tested) - val)]] = VAL
    dealt[dealt == NONE] = TRAIN
    return dealt


def _choose(sizes: Numbers, wanted: float) -> list[int]:
    """Choose groups, the first ones first, with as nearly ``wanted`` rows as whole groups allow."""
    chosen: list[int] = []
    for place, size in enumerate(sizes.tolist()):
        if size <= wanted + 1e-9:
            chosen.append(place)
            wanted -= size
    left = np.delete(np.arange(len(sizes)), chosen)
    if len(left):
        smallest = left[sizes[left].argmin()]
        if sizes[smallest] - wanted < wanted - 1e-9:
            chosen.append(int(smallest))
    return chosen
