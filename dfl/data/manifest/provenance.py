"""What images were made by and taken from: families of generators, sources of photographs."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.errors import ConfigError, named
from dfl.types import FAKE, REAL

PROVENANCE: Final = ("family", "source")
"""Columns that a manifest may have; `with_provenance` gives them to one that has not."""

_MOST_NAMES: Final = 3

Names = Mapping[str, Sequence[str]]
Texts = npt.NDArray[np.object_]
Mask = npt.NDArray[np.bool_]


def with_provenance(
    frame: pd.DataFrame, families: Names | None = None, sources: Names | None = None
) -> pd.DataFrame:
    """Say of every image which family of generators made it, and where photographs are from.

    A fake's family is what the manifest's column ``family`` says, else its generator. The source of
    a photograph is what the column ``source`` says, else its datasets: datasets that share a
    photograph, or a group of photographs, are one source, so that no kind of photograph is in two.
    Fakes have a source where the column says so: copies of photographs, such as reconstructions.

    Args:
        frame: The rows of a manifest.
        families: By the name of a family, the generators (or families of the column) that it has.
        sources: By the name of a source, the datasets that its photographs are in, or patterns of
            their paths (``imagenet/*``); of several that match, the first one counts.

    Returns:
        The rows with the columns ``family``, empty for photographs, and ``source``, empty for
        fakes that are no copies.

    Raises:
        ConfigError: If a name is that of nothing, or of two families.
    """
    fake, real = ((frame["label"] == label).to_numpy() for label in (FAKE, REAL))
    family = np.where(fake, given_provenance(frame, "family"), "")
    family = np.where(fake & (family == ""), frame["generator"].to_numpy(object), family)
    source = np.where(fake | real, given_provenance(frame, "source"), "")
    missing = real & (source == "")
    source[missing] = _linked_datasets(frame[real])[missing[real]]
    return frame.assign(
        family=_renamed(family, families or {}), source=_located(frame, source, real, sources or {})
    )


def given_provenance(frame: pd.DataFrame, column: str) -> Texts:
    """Read what a manifest itself says, shape ``(N,)``: empty where it says nothing.

    Args:
        frame: The rows of a manifest.
        column: One of ``PROVENANCE``.
    """
    if column not in frame:
        return np.full(len(frame), "", dtype=object)
    values = frame[column]
    return values.where(values.notna(), "").astype(str).to_numpy(object)


def _renamed(family: Texts, families: Names) -> Texts:
    known = {str(name) for name in family if name}
    wanted = [name for names in families.values() for name in names]
    if odd := [name for name in dict.fromkeys(wanted) if name not in known]:
        raise ConfigError(
            f"families: no fake is of {named(odd)}; the generators are {named(sorted(known))}"
        )
    if twice := [name for name in dict.fromkeys(wanted) if wanted.count(name) > 1]:
        raise ConfigError(f"families: {named(twice)} in two of them; name each generator once")
    of = {name: own for own, names in families.items() for name in names}
    return np.array([of.get(name, name) for name in family], dtype=object)


def _located(frame: pd.DataFrame, source: Texts, real: Mask, sources: Names) -> Texts:
    located = source.copy()
    dataset, path = frame["dataset"].to_numpy(object), frame["path"].to_numpy(object)
    left = real.copy()
    unused = []
    for own, names in sources.items():
        for name in names:
            # what is a source already, as in the column, may be renamed, and its copies with it
            found = (dataset == name) | (source == name)
            if not (found & real).any():
                found = np.array([fnmatchcase(each, name) for each in path])
            if not (found & real).any():
                unused.append(name)
            copies = ~real & (source == name)
            located[(found & left) | copies] = own
            left &= ~found
    if unused:
        known = sorted({*dataset[real], *source[real]})
        raise ConfigError(
            f"sources: no photograph is in {named(unused)}; name datasets ({named(known)}) or "
            "patterns of paths, such as imagenet/*"
        )
    return located


def _linked_datasets(photographs: pd.DataFrame) -> Texts:
    """Name the datasets that share photographs, or groups of them, after all of them."""
    datasets = list(pd.unique(photographs["dataset"]))
    leader = {name: name for name in datasets}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for column in ("path", "group"):
        pairs = photographs[[column, "dataset"]].drop_duplicates()
        pairs = pairs[pairs[column].duplicated(keep=False)]
        for _, own in pairs.groupby(column, sort=False)["dataset"]:
            first, *others = own
            for other in others:
                leader[find(other)] = find(first)
    members: dict[str, list[str]] = {}
    for name in datasets:
        members.setdefault(find(name), []).append(name)
    title = {
        root: "+".join(names[:_MOST_NAMES])
        + (f"+{len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")
        for root, names in members.items()
    }
    return photographs["dataset"].map(lambda name: title[find(name)]).to_numpy(object)
