"""The split that a set was published with, told from the names of folders and containers.

One rule for all sources. A folder or a container that has a word of a split in its name says the
split of the images in it; where several do, the strictest counts, for what is published for tests
must not be trained on. Only names under the root count, so that a place on one machine decides
nothing; the root's own name counts where nothing under it says a split.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from dfl.data.containers.base import SEPARATOR, place_of
from dfl.data.manifest.duplicates import STRICTNESS
from dfl.data.sources.words import is_content, split_in, split_role, split_word, splits_in, words_of
from dfl.errors import named

LEVELS_ABOVE: Final = 2
"""How many folders above the root are looked at, for a word that is not taken."""


def folder_of(path: str) -> str:
    """Return the folder of an image, or its container and the folder in there, as text."""
    place = place_of(path)
    if place is None:
        return path.rpartition("/")[0]
    container, member = place
    inner = member.rpartition("/")[0] if container.suffix == ".tar" else ""
    return f"{container.as_posix()}{SEPARATOR}{inner}"


def keep_published(frame: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, list[str]]:
    """Give images the split that the names of their folders and containers say.

    A split that is there is kept. ``val`` is validation where a test part stands beside each
    validation part of a dataset; without one it is what the set reports its results on: ``test``.
    Where all that is said is ``train``, by the names of containers or of folders of tables, nothing
    is: Hugging Face calls what has no split so.

    Args:
        frame: The columns of a manifest; and, where they differ from what paths say, ``folder``,
            the folder of an image as `folder_of` gives it, and ``outside``, how many letters of it
            are the place of a set outside the root, which does not count.
        root: The folder under which paths are.

    Returns:
        The table with its splits, and what there is to say of them.
    """
    folders = frame["folder"] if "folder" in frame else frame["path"].map(folder_of)
    code, keys = pd.factorize(folders)
    _, first = np.unique(code, return_index=True)
    outside = frame["outside"].to_numpy()[first] if "outside" in frame else np.zeros_like(first)
    names = [_names_in(key, skip) for key, skip in zip(keys, outside, strict=True)]
    words = _Words(names)
    said = [words.of(each) for each in names]
    notes = words.notes
    open_rows = (frame["split"] == "").to_numpy()
    if not any(said) and open_rows.any():
        own, own_notes = _of_root(root)
        notes += own_notes
        said = [None if skip else own for skip in outside]
    elif any(said) and (own_word := split_word(_absolute(root).name)):
        notes.append(
            f"{root}: its own name ({own_word}) counts for no split, since folders in it do"
        )
    is_open = np.isin(np.arange(len(keys)), code[open_rows])
    notes += _of_sets_outside(keys[is_open], outside[is_open], compress(said, is_open))
    if not any(said):
        return frame, notes
    splits = np.array([each.split if each else "" for each in said], dtype=object)
    found = pd.DataFrame(
        {
            "dataset": frame["dataset"].to_numpy(),
            "shown": np.array([each.shown if each else "" for each in said], dtype=object)[code],
            "said": splits[code],
            "given": frame["split"].to_numpy(),
        }
    )
    has_test = np.array([each is None or each.has_test for each in said])[code]
    found["split"] = found["said"]
    is_val = found["said"] == "val"
    without = found.loc[is_val & ~has_test & open_rows, "dataset"].unique()
    reported = is_val & found["dataset"].isin(without)
    found.loc[reported, "split"] = split_role("val", has_test=False)
    notes += _other_given(found[~open_rows])
    kept = found[open_rows & (found["said"] != "")]
    notes += _kept(kept)
    taken = np.where(open_rows, found["split"], found["given"])
    return frame.assign(split=taken), notes


def untaken(frame: pd.DataFrame, table: str) -> list[str]:
    """Say where the names of folders say a split, and a table of images says none.

    Args:
        frame: The columns of a manifest.
        table: What the lines name.
    """
    rows = frame[frame["split"] == ""]
    code, keys = pd.factorize(rows["path"].map(folder_of))
    names = [_names_in(key, 0) for key in keys]
    words = _Words(names)
    shown = np.array([each.shown if (each := words.of(place)) else "" for place in names], object)
    said = shown[code]
    return [
        f"{table}: {images} images in {place} have no split, so they are dealt one; to keep it, "
        "write it in a column split"
        for place, images in pd.Series(said[said != ""]).value_counts(sort=False).items()
    ]


@dataclass(frozen=True)
class _Name:
    """A folder or a container.

    Attributes:
        above: Where it is.
        name: Its name, without an ending.
        is_file: Whether it is a container.
        is_default: Whether Hugging Face names it ``train`` where data have no splits.
    """

    above: str
    name: str
    is_file: bool = False
    is_default: bool = False


@dataclass(frozen=True)
class _Said:
    """A split that a name says, how to show the name, and whether a test part is beside it."""

    split: str
    shown: str
    has_test: bool


class _Words:
    """The words of splits in names, seen together with what stands beside them.

    Args:
        names: Of each place of images, the folders and the container that it is in.
    """

    def __init__(self, names: list[list[_Name]]) -> None:
        self.notes: list[str] = []
        self._beside: dict[str, set[str]] = defaultdict(set)
        each = {name for place in names for name in place}
        for name in each:
            self._beside[name.above].add(name.name)
        self._splits = {name: self._split(name) for name in sorted(each, key=_order)}
        said = {split for split in self._splits.values() if split}
        lone = [name for name, split in self._splits.items() if split and name.is_default]
        if said == {"train"} and lone:
            self._splits |= dict.fromkeys(lone, "")
            self.notes.append(
                f"{named(sorted({name.name for name in lone}))}: 'train' is all that names "
                "of files say, so it is taken for no split; name files of a test part as well, "
                "or set splits.test_fraction to 0 to train on all of them"
            )
        several = [name for name in each if len(splits_in(name.name)) > 1]
        if several:
            self.notes.append(
                f"{named(sorted({name.name for name in several}))}: has words of several "
                "splits and is taken for none; rename it to have one"
            )

    def _split(self, name: _Name) -> str:
        split = split_in(name.name)
        beside = self._beside[name.above]
        others = {split_in(other) for other in beside}
        if split == "train" and others <= {"", "train"} and any(map(is_content, beside)):
            line = (
                f"{name.above.strip('/') or '.'}/{name.name}: is taken for a class of objects, as "
                f"what is beside it ({named(sorted(beside - {name.name}))})"
            )
            self.notes.append(line)
            return ""
        return split

    def of(self, place: list[_Name]) -> _Said | None:
        """Return the strictest split that the names of a place say."""
        found = [name for name in place if self._splits[name]]
        if not found:
            return None
        name = max(found, key=lambda name: STRICTNESS[self._splits[name]])
        split = self._splits[name]
        word = next(word for word in words_of(name.name) if split_in(word) == split)
        shown = f"files named {word}" if name.is_file else f"{name.name}/"
        beside = {split_in(other) for other in self._beside[name.above]}
        return _Said(split, shown, "test" in beside)


def _order(name: _Name) -> tuple[str, str]:
    return name.above, name.name


def _names_in(key: str, skip: int) -> list[_Name]:
    """Take a place apart, but for the part of it that does not count."""
    container, packed, inner = key.partition(SEPARATOR)
    above, rest = container[:skip], container[skip:].strip("/")
    names: list[_Name] = []
    parts = rest.split("/") if rest else []
    for left, part in zip(reversed(range(len(parts))), parts, strict=True):
        is_file = bool(packed) and left == 0
        is_around = left == 1 and container.endswith((".arrow", ".parquet"))
        name = part.rpartition(".")[0] if is_file else part
        names.append(_Name(above, name, is_file, is_file or is_around))
        above += f"/{part}"
    for part in inner.split("/") if inner else []:
        names.append(_Name(above, part))
        above += f"/{part}"
    return names


def _of_root(root: Path) -> tuple[_Said | None, list[str]]:
    """Return the split that the root's own name says, or say which word above it is not taken."""
    place = _absolute(root)
    if split := split_word(place.name):
        line = f"{root}: is the {split} part as a whole, by its own name"
        return _Said(split, f"{place.name}/", has_test=False), [line]
    for above in list(place.parents)[:-2][:LEVELS_ABOVE]:
        if split := split_word(above.name):
            line = (
                f"{root}: {above.name!r} above it is not taken for the split {split}, since it is "
                f"not under the root; to have it, set root to {above.parent}"
            )
            return None, [line]
    return None, []


def _absolute(root: Path) -> Path:
    return Path(os.path.abspath(root))  # noqa: PTH100 - links are called as they are named


def _of_sets_outside(
    keys: Iterable[str], outside: Iterable[int], said: Iterable[_Said | None]
) -> list[str]:
    """Say which words in the places of sets outside the root are not taken."""
    untold = {
        key[:skip].rstrip("/")
        for key, skip, each in zip(keys, outside, said, strict=True)
        if skip and each is None
    }
    return [
        (
            f"{place}: {name!r} in it is not taken for a split, since the set is not under the "
            f"root; to have it, give the set with {{path: {place}, split: {split_word(name)}}}"
        )
        for place in sorted(untold)
        for name in place.split("/")[2:][-1 - LEVELS_ABOVE :]
        if split_word(name)
    ]


def _kept(rows: pd.DataFrame) -> list[str]:
    """Count the images whose split is the published one."""
    kept: dict[str, list[str]] = {}
    for each in _counted(rows, ["dataset", "shown", "said", "split"]):
        why = ", as it has no test part" if each.said != each.split else ""
        line = f"{each.images} images in {each.shown} are {each.split}{why}"
        kept.setdefault(each.dataset, []).append(line)
    return [f"{dataset}: as published, {', '.join(lines)}" for dataset, lines in kept.items()]


def _other_given(rows: pd.DataFrame) -> list[str]:
    """Say where a column or the config gives another split than a name says."""
    other = rows[(rows["said"] != "") & (rows["said"] != rows["given"])]
    return [
        (
            f"{each.dataset}: {each.images} images in {each.shown} are {each.given}, as their "
            "column or the config says"
        )
        for each in _counted(other, ["dataset", "shown", "given"])
    ]


def _counted(rows: pd.DataFrame, by: list[str]) -> Iterator[Any]:
    counts = rows.groupby(by, sort=False).size().rename("images").reset_index()
    yield from counts.itertuples(index=False)
