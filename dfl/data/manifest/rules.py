"""The rules of a manifest, checked column by column: fast for a million rows."""

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from dfl.data.containers.content import is_there
from dfl.errors import ManifestError

COLUMNS: Final = ("path", "label", "dataset", "generator", "split", "group")
"""The columns every manifest has, in this order; others follow and are kept."""

SPLITS: Final = ("", "train", "val", "test")


def check_columns(frame: pd.DataFrame, source: str) -> None:
    """Check that a table has all ``COLUMNS``, or raise a ManifestError that names ``source``."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ManifestError(
            f"{source}: no column {', '.join(missing)}; a manifest has {', '.join(COLUMNS)} "
            f"(found: {', '.join(map(str, frame.columns))})"
        )


def check_frame(frame: pd.DataFrame, source: str) -> None:
    """Check everything about a table but whether its images exist.

    Args:
        frame: The table of a manifest.
        source: What the error names, usually the file the table is from.

    Raises:
        ManifestError: At the first rule that is broken; rows are counted as a spreadsheet shows
            them, the header being row 1.
    """
    check_columns(frame, source)
    if frame.empty:
        raise ManifestError(f"{source}: holds no image; a manifest has at least one row")
    for name in ("path", "dataset", "generator", "group"):
        _refuse(
            frame, (frame[name] == "").to_numpy(), source, f"{name} is empty; give every row one"
        )
    bad_label = ~frame["label"].isin([0, 1, -1]).to_numpy()
    _refuse(
        frame,
        bad_label,
        source,
        "label must be 0 (real) or 1 (fake), got {label}; -1 stands for unknown",
    )
    bad_split = ~frame["split"].isin(SPLITS).to_numpy()
    _refuse(frame, bad_split, source, "split must be train, val, test or empty, got {split!r}")
    decided = frame[frame["split"] != ""]
    if not frame["path"].is_unique:
        twice = frame.duplicated(["path", "dataset"]).to_numpy()
        what = "{path} is in dataset {dataset!r} twice; keep one of its rows"
        _refuse(frame, twice, source, what)
        refuse_two(frame, "path", "label", source)
        refuse_two(frame, "path", "group", source)
        refuse_two(decided, "path", "split", source)
    if not frame["group"].equals(frame["path"]):
        refuse_two(decided, "group", "split", source)


def check_files(paths: Sequence[str], root: Path, source: str) -> None:
    """Check that every image exists, reading each folder once.

    Args:
        paths: Paths of a manifest.
        root: The folder under which relative ones are.
        source: What the error names.

    Raises:
        ManifestError: If any is missing; names the first and says how many there are.
    """
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        wanted[path.rpartition("/")[0] or path[: path.startswith("/")]].append(path)
    gone: set[str] = set()
    for parent, members in wanted.items():
        names: set[str] = set()
        with suppress(OSError), os.scandir(root / parent) as entries:
            names = {entry.name for entry in entries if entry.is_file()}
        # A name that is not listed may still open: file systems fold case and unicode forms.
        gone.update(
            path
            for path in members
            if path.rpartition("/")[2] not in names and not is_there(root / path)
        )
    if gone:
        first = next(path for path in paths if path in gone)
        raise ManifestError(
            f"{source}: {len(gone)} of {len(set(paths))} images are missing, the first is "
            f"{root / first}; restore them, give another root, or remove their rows"
        )


def _refuse(
    frame: pd.DataFrame,
    bad: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    source: str,
    message: str,
) -> None:
    if bad.any():
        row = int(bad.argmax())
        values = {name: frame[name].iloc[row] for name in COLUMNS}
        raise ManifestError(f"{source}: row {row + 2}: {message.format(**values)}")


def refuse_two(frame: pd.DataFrame, name: str, column: str, source: str) -> None:
    """Refuse a table where rows of one name differ in a column.

    Args:
        frame: The table.
        name: The column with the names.
        column: The column in which they must not differ.
        source: What the error names.

    Raises:
        ManifestError: If any do.
    """
    pairs = frame[[name, column]].drop_duplicates()
    bad = pairs.duplicated(name)
    if bad.any():
        which = pairs[name][bad].iloc[0]
        first, second = pairs[column][pairs[name] == which].iloc[:2].tolist()
        raise ManifestError(
            f"{source}: {name} {which!r} has two {column}s, {first!r} and {second!r}; give it one"
        )
