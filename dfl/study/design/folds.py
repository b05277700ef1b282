"""Nested validation: whole families of generators and sources of photographs are left out."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.study.design.training_sets import Mask
from dfl.types import FAKE, REAL

Numbers = npt.NDArray[np.int64]

MOST_FOLDS: Final = 5
_NONE: Final = -1


@dataclass(frozen=True)
class Folds:
    """How the images that a head learns from are divided for validation.

    A head is fitted once for each fold, without the families and sources of the images validated in
    it, so that every image is scored by a head to which its family, its source and its group are
    new. An imitation of a photograph, which has its group or its source, is validated beside it, or
    not at all where its family belongs to another fold.

    Attributes:
        all_learnt: Which rows are learnt from in the end, shape ``(N,)``.
        validated: The fold in which each row is validated, -1 for none, shape ``(N,)``.
        family: The fold that each row's family belongs to, -1 for none, shape ``(N,)``.
        source: The fold that each row's source belongs to, or that of the photograph which it
            imitates, -1 for none, shape ``(N,)``.
        groups: A number for each row's group, shape ``(N,)``.
    """

    all_learnt: Mask
    validated: Numbers
    family: Numbers
    source: Numbers
    groups: Numbers

    @property
    def count(self) -> int:
        """How many folds there are."""
        return int(self.validated.max(initial=_NONE)) + 1

    def learnt(self, fold: int) -> Mask:
        """Say which rows the head of a fold learns from, shape ``(N,)``."""
        held = self.validated == fold
        kin = (self.family == fold) | (self.source == fold)
        shared = np.isin(self.groups, self.groups[held])
        return np.asarray(self.all_learnt & ~held & ~kin & ~shared)


def nested_folds(
    frame: pd.DataFrame, learnt: Mask, *, matched: Sequence[str] = (), seed: int = 0
) -> Folds:
    """Deal families and sources to at most five folds, each with as many images as can be.

    The families and sources of a matched dataset go to one fold, so that a head which is validated
    on its fakes has not learnt from its photographs either. A class that comes from one family, or
    one source, alone is dealt by groups: what is validated is then not new in that respect.

    Args:
        frame: The rows of a manifest with their provenance.
        learnt: Which rows a head learns from, shape ``(N,)``.
        matched: The matched datasets.
        seed: Decides between equals.

    Returns:
        The folds; none where a class has not two groups.
    """
    family, source = (frame[name].to_numpy(object) for name in ("family", "source"))
    label, dataset = frame["label"].to_numpy(), frame["dataset"].to_numpy(object)
    group, _ = pd.factorize(frame["group"])
    fake, real = learnt & (label == FAKE), learnt & (label == REAL)
    unit = {
        FAKE: family if len(set(family[fake])) > 1 else _prefixed(group),
        REAL: source if len(set(source[real])) > 1 else _prefixed(group),
    }
    by_family, by_source = unit[FAKE] is family, unit[REAL] is source
    bundles = _bundles(unit, fake, real, dataset, matched if by_family and by_source else ())
    if _most(bundles) < 2:  # so much is joined that nothing could be left out
        bundles = _bundles(unit, fake, real, dataset, ())
    count = min(MOST_FOLDS, _most(bundles))
    if count < 2:
        none = np.full(len(frame), _NONE)
        return Folds(learnt, none, none, none, group)
    images = {side: Counter(unit[side][own]) for side, own in ((FAKE, fake), (REAL, real))}
    sizes = {
        bundle: tuple(
            sum(counted[name] for each, name in bundle if each == side) / counted.total()
            for side, counted in images.items()
        )
        for bundle in bundles
    }
    order = sorted(bundles, key=lambda bundle: (-sum(sizes[bundle]), _drawn(seed, bundle)))
    filled = np.zeros((count, 2))
    fold_of: dict[tuple[int, str], int] = {}
    for bundle in order:
        # the fold that has least of what the bundle brings
        brings = np.array(sizes[bundle])
        fold = int(np.lexsort((filled.sum(1), filled @ (brings > 0)))[0])
        filled[fold] += brings
        fold_of |= dict.fromkeys(bundle, fold)
    of_family = np.array([fold_of.get((FAKE, name), _NONE) for name in unit[FAKE]])
    of_source = np.array([fold_of.get((REAL, name), _NONE) for name in unit[REAL]])
    # an imitation belongs to the fold of its photograph too
    imitated = np.full(group.max(initial=-1) + 1, _NONE)
    imitated[group[real]] = of_source[real]
    of_source = np.where(fake & (of_source == _NONE), imitated[group], of_source)
    apart = fake & (of_source != _NONE) & (of_source != of_family)
    validated = np.where(fake & ~apart, of_family, np.where(real, of_source, _NONE))
    return Folds(
        learnt,
        validated,
        np.where(fake & by_family, of_family, _NONE),
        np.where(learnt & by_source, of_source, _NONE),
        group,
    )


def _prefixed(group: Numbers) -> npt.NDArray[np.object_]:
    return np.array([f"group {number}" for number in group], dtype=object)


def _bundles(
    unit: dict[int, npt.NDArray[np.object_]],
    fake: Mask,
    real: Mask,
    dataset: npt.NDArray[np.object_],
    matched: Sequence[str],
) -> list[tuple[tuple[int, str], ...]]:
    """Join the units that a matched dataset of one source has, and list the others alone.

    Where its photographs are of several sources, its fakes are imitations, which have their folds
    beside them.
    """
    sides = ((FAKE, fake), (REAL, real))
    bundles = [{(label, name)} for label, own in sides for name in dict.fromkeys(unit[label][own])]
    for name in matched:
        both = {
            (label, each)
            for label, own in sides
            for each in set(unit[label][own & (dataset == name)])
        }
        if sum(label == REAL for label, _ in both) > 1:
            continue
        touched = [bundle for bundle in bundles if bundle & both]
        bundles = [bundle for bundle in bundles if not bundle & both]
        if touched:
            bundles.append(set().union(*touched))
    return [tuple(sorted(bundle)) for bundle in bundles]


def _most(bundles: Sequence[tuple[tuple[int, str], ...]]) -> int:
    """Say to how many folds bundles can be dealt, each with both classes."""
    return min(sum(any(each[0] == side for each in b) for b in bundles) for side in (FAKE, REAL))


def _drawn(seed: int, bundle: tuple[tuple[int, str], ...]) -> str:
    return hashlib.sha256(f"{seed}:{bundle}".encode()).hexdigest()
