"""The rules of a manifest, checked column by column: fast for a million rows."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from dfl.data.containers.content import is_there
from dfl.errors import MOST_NAMED, ManifestError, named

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
        ManifestError: If a rule is broken; names the first ten rows that do it, counted as a
            spreadsheet shows them, the header being row 1.
    """
    check_columns(frame, source)
    if frame.empty:
        raise ManifestError(f"{source}: holds no image; a manifest has at least one row")
    faults = {
        f"{name} is empty; give every row one": frame[name] == ""
        for name in ("path", "dataset", "generator", "group")
    }
    label = "label must be 0 (real) or 1 (fake), got {label}; -1 stands for unknown"
    split = "split must be train, val, test or empty, got {split!r}"
    faults[label] = ~frame["label"].isin([0, 1, -1])
    faults[split] = ~frame["split"].isin(SPLITS)
    is_shared = not frame["path"].is_unique
    if is_shared:
        twice = "{path} is in dataset {dataset!r} twice; keep one of its rows"
        faults[twice] = frame.duplicated(["path", "dataset"])
    _refuse(frame, faults, source)
    decided = frame[frame["split"] != ""]
    if is_shared:
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
        ManifestError: If any is missing; names the first ten and says how many there are.
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
        first = [*islice((path for path in dict.fromkeys(paths) if path in gone), MOST_NAMED)]
        raise ManifestError(
            f"{source}: {len(gone)} of {len(set(paths))} images are missing under {root}: "
            f"{named(first, len(gone))}; {_remedy(first[0], root)}, or remove their rows"
        )


def _remedy(missing: str, root: Path) -> str:
    """Say what may help where an image is missing."""
    if "://" in missing:
        return "download them and write the paths of the files"
    if Path(missing).is_absolute():
        return "restore them there, make their paths relative and give their root"
    if not Path(missing).suffix:
        named_so = (missing + ending for ending in (".jpg", ".jpeg", ".png", ".webp"))
        if found := next((name for name in named_so if (root / name).is_file()), None):
            return f"{found} is there: write the endings of their names"
    with suppress(OSError):
        inside = (Path(entry.path) for entry in os.scandir(root) if entry.is_dir())
        for folder in (root.absolute().parent, *sorted(inside)):
            if (folder / missing).is_file():
                return f"{folder} has the first of them: give that as root"
    return "restore them, give another root"


def _refuse(frame: pd.DataFrame, faults: "Mapping[str, pd.Series[bool]]", source: str) -> None:
    """Refuse rows by what is said of them, if there are any; the first ones are named."""
    found = [
        (row, message)
        for message, bad in faults.items()
        for row in np.flatnonzero(bad)[:MOST_NAMED].tolist()
    ]
    if not found:
        return
    rows: dict[str, list[str]] = {}
    for row, message in sorted(found)[:MOST_NAMED]:
        values = {name: frame[name].iloc[row] for name in COLUMNS}
        rows.setdefault(message.format(**values), []).append(str(row + 2))
    said = [
        f"row{'s' if len(each) > 1 else ''} {', '.join(each)}: {message}"
        for message, each in rows.items()
    ]
    count = sum(int(bad.sum()) for bad in faults.values())
    more = count - min(len(found), MOST_NAMED)
    rest = f"; and {more} more" if more else ""
    raise ManifestError(f"{source}: {'; '.join(said)}{rest}")


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
    if not bad.any():
        return
    which = pairs[name][bad].drop_duplicates()
    shown = which.iloc[:MOST_NAMED].tolist()
    said = []
    for each in shown:
        first, second = pairs[column][pairs[name] == each].iloc[:2].tolist()
        said.append(f"{name} {each!r} has two {column}s, {first!r} and {second!r}")
    raise ManifestError(f"{source}: {named(said, len(which), separator='; ')}; give it one")
