"""The manifest: a table with one row for each image of each dataset pair."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as pa_csv

from dfl.data.manifest.rules import COLUMNS, check_columns, check_files, check_frame
from dfl.errors import ManifestError, one_line
from dfl.files import write_csv, writing
from dfl.types import REAL, UNKNOWN

LABELS: Final = {"0": 0, "1": 1, "-1": -1}
DEFAULT_GENERATORS: Final = {REAL: "real", UNKNOWN: "unknown"}


@dataclass(frozen=True)
class Manifest:
    """Images, what is known of them, and the folder they are in.

    A row is one image in one dataset pair: a real set that serves two pairs has a row in each, of
    the same path, group and split, and of another ``dataset``.

    Attributes:
        frame: At least ``COLUMNS``, with a ``RangeIndex``. ``path`` is a POSIX string,
            under ``root`` unless it is absolute; ``label`` is an int (0 real, 1 fake, -1 unknown);
            ``split`` is ``""``, ``"train"``, ``"val"`` or ``"test"``; rows of one ``group`` are
            never in two splits.
        root: The folder under which relative paths are.
    """

    frame: pd.DataFrame
    root: Path

    @classmethod
    def read(cls, path: str | Path, root: Path | None = None, *, check_paths: bool = True) -> Self:
        """Read a table and check it.

        All columns of a CSV but ``label`` are read as strings, so that names such as ``NA``,
        ``1.10`` or ``no`` survive. An empty ``group`` becomes the path (each image on its own); an
        empty ``generator`` becomes ``real`` or ``unknown`` where the label says so.

        Args:
            path: A ``.csv`` or ``.parquet`` file.
            root: The folder of relative paths; the file's own folder by default.
            check_paths: Whether every image must exist.

        Raises:
            ManifestError: If the file is missing or cannot be read, or breaks a rule of a manifest.
        """
        path = Path(path)
        frame = _normalise(_read_table(path), str(path))
        manifest = cls(frame, path.parent if root is None else Path(root))
        check_frame(frame, str(path))
        pa.default_memory_pool().release_unused()  # as much as the table takes
        if check_paths:
            check_files(frame["path"].tolist(), manifest.root, str(path))
        return manifest

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, str | int]], root: Path) -> Self:
        """Build a manifest from one mapping per row, keyed by ``COLUMNS``; nothing is checked."""
        return cls.from_frame(pd.DataFrame(list(rows), columns=list(COLUMNS)), root)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, root: Path) -> Self:
        """Build a manifest from a table that has ``COLUMNS``; nothing is checked."""
        types = {name: "int64" if name == "label" else "str" for name in COLUMNS}
        return cls(frame[[*COLUMNS]].astype(types).reset_index(drop=True), root)

    def write(self, path: str | Path) -> None:
        """Write the table as CSV or Parquet, whichever the ending says, in one step.

        Raises:
            ManifestError: If the ending is another, or the file cannot be written.
        """
        write_table(self.frame, Path(path))

    def resolve(self, row_path: str) -> Path:
        """Return the file of a ``path`` of the table."""
        return self.root / row_path

    def paths(self) -> list[Path]:
        """Return the files of all rows, in their order."""
        return [self.root / path for path in self.frame["path"]]

    def select(self, split: str) -> "Manifest":
        """Return the rows of one split, ``""`` being the rows that have none yet."""
        chosen = self.frame[self.frame["split"] == split]
        return Manifest(chosen.reset_index(drop=True), self.root)

    def validate(self, source: str = "manifest") -> None:
        """Check every rule, and that every image exists.

        Args:
            source: What the error names as the place of the fault, usually a file.

        Raises:
            ManifestError: If a column is missing; a label, a split or a name is none; a path is in
                one dataset twice or has two labels or groups; a path or a group is in two splits;
                or an image is missing.
        """
        check_frame(self.frame, source)
        check_files(self.frame["path"].tolist(), self.root, source)

    def __len__(self) -> int:
        return len(self.frame)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table beside its place and then put it there, so that no half of it is ever seen.

    Raises:
        ManifestError: If the ending is neither ``.csv`` nor ``.parquet``, or the file cannot be
            written.
    """
    suffix = _suffix(path)
    try:
        with writing(path) as partial:
            if suffix == ".parquet":
                frame.to_parquet(partial, index=False)
            else:
                write_csv(frame, partial)
    except OSError as err:
        reason = err.strerror or str(err)
        raise ManifestError(f"{path}: cannot be written ({reason}); choose another place") from err


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".parquet"}:
        raise ManifestError(
            f"{path}: a manifest ends in .csv or .parquet, not {suffix!r}; rename it"
        )
    return suffix


def _read_table(path: Path) -> pd.DataFrame:
    suffix = _suffix(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; give the path of a .csv or .parquet file")
    try:
        return pd.read_parquet(path) if suffix == ".parquet" else _read_csv(path)
    except (ValueError, OSError) as err:  # ArrowInvalid and decoding errors among them
        raise ManifestError(f"{path}: not a readable {suffix[1:]} table ({one_line(err)})") from err


def _read_csv(path: Path) -> pd.DataFrame:
    """Read all columns as texts, none of which is a Python object meanwhile."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file), [])
    wrong: list[pa_csv.InvalidRow] = []

    def refuse(row: pa_csv.InvalidRow) -> str:
        wrong.append(row)
        return "error"

    try:
        table = pa_csv.read_csv(
            path,
            pa_csv.ReadOptions(use_threads=False),  # else rows have no numbers
            pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid:
        if not wrong:
            raise
        row = wrong[0]
        fault = "more" if row.actual_columns > row.expected_columns else "fewer"
        raise ManifestError(
            f"{path}: row {row.number} has {fault} fields than its header ({row.actual_columns} "
            f"and {row.expected_columns}); quote commas, and write a comma for an empty field"
        ) from None
    is_alone = {"path", "group"} <= set(names) and table["group"].equals(table["path"])
    table = table.combine_chunks()  # else rows are taken from it a hundred times slower
    frame: pd.DataFrame = table.drop_columns(["group"] if is_alone else []).to_pandas()
    return frame.assign(group=frame["path"])[names] if is_alone else frame


def _normalise(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    check_columns(frame, source)
    others = [name for name in frame.columns if name not in COLUMNS]
    frame = frame[[*COLUMNS, *others]]
    for name in COLUMNS:
        frame[name] = _texts(frame[name])
    frame["label"] = _labels(frame["label"], source)
    for label, generator in DEFAULT_GENERATORS.items():
        unnamed = (frame["generator"] == "") & (frame["label"] == label)
        if unnamed.any():
            frame["generator"] = frame["generator"].mask(unnamed, generator)
    alone = frame["group"] == ""
    if (alone | (frame["group"] == frame["path"])).all():
        frame["group"] = frame["path"]
    elif alone.any():
        frame["group"] = frame["group"].mask(alone, frame["path"])
    return frame


def _texts(column: "pd.Series[str]") -> "pd.Series[str]":
    if column.dtype == "str" and not column.hasnans:
        return column
    filled = column.astype("object")
    return filled.where(filled.notna(), "").astype(str)


def _labels(texts: "pd.Series[str]", source: str) -> "pd.Series[int]":
    code, found = pd.factorize(texts)
    bad = np.array([text not in LABELS for text in found])[code]
    if bad.any():
        row = int(bad.argmax())
        raise ManifestError(
            f"{source}: row {texts.index[row] + 2}: label must be 0 (real) or 1 (fake), "
            f"got {texts.iloc[row]}; -1 stands for unknown"
        )
    values = np.array([LABELS[text] for text in found], dtype=np.int64)
    return pd.Series(values[code], index=texts.index)
