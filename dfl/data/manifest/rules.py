"""The rules of a manifest, checked column by column: fast for a million rows."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.data.containers.content import is_there
from dfl.errors import ManifestError
from dfl.texts import codes

Codes = npt.NDArray[np.int64]

__all__ = ["COLUMNS", "SPLITS", "check_columns", "check_files", "check_frame"]

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
    _check_repeated(frame, source)


def _check_repeated(frame: pd.DataFrame, source: str) -> None:
    """Check what rows of one path, or of one group, have to have in common."""
    path = codes(frame["path"])
    alone = frame["group"].array is frame["path"].array
    group = path if alone else codes(frame["group"])
    split = codes(frame["split"])
    dataset = pd.DataFrame({"path": path, "dataset": codes(frame["dataset"])})
    twice = dataset.duplicated().to_numpy()
    _refuse(frame, twice, source, "{path} is in dataset {dataset!r} twice; keep one of its rows")
    label = frame["label"].to_numpy(dtype=np.int64)
    decided = (frame["split"] != "").to_numpy()
    everywhere = np.ones(len(frame), dtype=bool)
    _refuse_two(frame, ("path", path), ("label", label), everywhere, source)
    _refuse_two(frame, ("path", path), ("group", group), everywhere, source)
    _refuse_two(frame, ("path", path), ("split", split), decided, source)
    _refuse_two(frame, ("group", group), ("split", split), decided, source)


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
        names = _file_names(root / parent)
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


def _file_names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


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


def _refuse_two(
    frame: pd.DataFrame,
    name: tuple[str, Codes],
    column: tuple[str, Codes],
    among: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    source: str,
) -> None:
    """Refuse a table where rows of one ``name`` differ in ``column``; both with their codes."""
    code = name[1][among]
    if not len(code) or code.max() + 1 == len(code) == len(among):
        return  # no two rows of one name
    value = column[1][among]
    first = np.zeros(code.max() + 1, dtype=np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    first_value = value[first]
    bad = value != first_value[code]
    if bad.any():
        rows = np.flatnonzero(among)
        row = int(bad.argmax())
        values = frame[column[0]].iloc[rows[[first[code[row]], row]]].tolist()
        raise ManifestError(
            f"{source}: {name[0]} {frame[name[0]].iloc[rows[row]]!r} has two {column[0]}s, "
            f"{values[0]!r} and {values[1]!r}; give it one"
        )
