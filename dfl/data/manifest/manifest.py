"""The manifest: a table with one row for each image of each dataset pair."""

import codecs
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
from dfl.errors import ManifestError, named, one_line
from dfl.files import write_csv, writing
from dfl.types import REAL, UNKNOWN

LABELS: Final = {"0": 0, "1": 1, "-1": -1}
SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
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
        notes: What a user should know of how it was told what the images are, a line each.
    """

    frame: pd.DataFrame
    root: Path
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path, root: Path | None = None, *, check_paths: bool = True) -> Self:
        """Read a table and check it.

        All columns of a CSV but ``label`` are read as strings, so that names such as ``NA``,
        ``1.10`` or ``no`` survive. An empty ``group`` becomes the path (each image on its own); an
        empty ``generator`` becomes ``real`` or ``unknown`` where the label says so.

        Args:
            path: A ``.csv``, ``.tsv`` or ``.parquet`` file.
            root: The folder of relative paths; the file's own folder by default.
            check_paths: Whether every image must exist.

        Raises:
            ManifestError: If the file is missing or cannot be read, or breaks a rule of a manifest.
        """
        path = Path(path)
        root = path.parent if root is None else Path(root)
        return cls.from_table(read_table(path), root, str(path), check_paths=check_paths)

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame,
        root: Path,
        source: str,
        *,
        check_paths: bool = True,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """Build a manifest from a table that somebody wrote, and check it as ``read`` does.

        Args:
            table: At least ``COLUMNS``, of any type.
            root: The folder of relative paths.
            source: What an error names, usually the file of the table.
            check_paths: Whether every image must exist.
            notes: As in ``Manifest``.

        Raises:
            ManifestError: If the table breaks a rule of a manifest.
        """
        frame = _normalise(table, source)
        check_frame(frame, source)
        pa.default_memory_pool().release_unused()  # as much as the table takes
        if check_paths:
            check_files(frame["path"].tolist(), root, source)
        return cls(frame, root, notes)

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, str | int]], root: Path) -> Self:
        """Build a manifest from one mapping per row, keyed by ``COLUMNS``; nothing is checked."""
        return cls.from_frame(pd.DataFrame(list(rows), columns=list(COLUMNS)), root)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, root: Path, *, notes: tuple[str, ...] = ()) -> Self:
        """Build a manifest from a table that has ``COLUMNS``; nothing is checked."""
        types = {name: "int64" if name == "label" else "str" for name in COLUMNS}
        return cls(frame[[*COLUMNS]].astype(types).reset_index(drop=True), root, notes)

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


def read_table(path: Path) -> pd.DataFrame:
    """Read a table as it is, with whatever columns it has.

    A CSV may be separated by commas, semicolons, tabs or bars, which its header tells, in UTF-8 or
    in the UTF-16 of spreadsheets; all of its columns are texts.

    Args:
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file.

    Raises:
        ManifestError: If it is missing or cannot be read.
    """
    suffix = _suffix(path, (".csv", ".tsv", ".parquet"))
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; give the path of a .csv or .parquet file")
    try:
        return pd.read_parquet(path) if suffix == ".parquet" else _read_csv(path)
    except UnicodeDecodeError as err:
        raise ManifestError(
            f"{path}: not a readable {suffix[1:]} table ({one_line(err)}); save it as UTF-8"
        ) from err
    except (ValueError, OSError) as err:  # ArrowInvalid among them
        raise ManifestError(f"{path}: not a readable {suffix[1:]} table ({one_line(err)})") from err


def _suffix(path: Path, known: tuple[str, ...] = (".csv", ".parquet")) -> str:
    suffix = path.suffix.lower()
    if suffix not in known:
        listed = f"{', '.join(known[:-1])} or {known[-1]}"
        raise ManifestError(
            f"{path}: a manifest ends in {listed}, not {suffix!r}; save it as one of them"
        )
    return suffix


def _read_csv(path: Path) -> pd.DataFrame:
    """Read all columns as texts, none of which is a Python object meanwhile."""
    with path.open("rb") as raw:
        is_wide = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    with path.open(encoding="utf-16" if is_wide else "utf-8-sig", newline="") as file:
        first = file.readline()
        if first.lower().startswith("sep="):
            raise ManifestError(f"{path}: begins with {first.strip()!r}, of Excel alone; remove it")
        separator = _separator(first)
        file.seek(0)
        names = next(csv.reader(file, delimiter=separator), [])
    if twice := {name for name in names if name and names.count(name) > 1}:
        raise ManifestError(
            f"{path}: has the column {named(sorted(twice))} twice; rename one of them"
        )
    wrong: list[pa_csv.InvalidRow] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    table = pa_csv.read_csv(
        path,
        # without threads: else rows have no numbers
        pa_csv.ReadOptions(use_threads=False, encoding="utf-16" if is_wide else "utf8"),
        pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=skip),
        pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    if wrong:
        rows: dict[int, list[str]] = {}
        for row in wrong:
            rows.setdefault(row.actual_columns, []).append(str(row.number))
        said = [
            f"row{'s' if len(each) > 1 else ''} {named(each)} "
            f"{'have' if len(each) > 1 else 'has'} {'more' if count > len(names) else 'fewer'} "
            f"fields than its header ({count} and {len(names)})"
            for count, each in rows.items()
        ]
        raise ManifestError(
            f"{path}: {named(said)}; quote values that hold a {SEPARATORS[separator]}, and write "
            "one for an empty field too"
        )
    is_alone = {"path", "group"} <= set(names) and table["group"].equals(table["path"])
    table = table.combine_chunks()  # else rows are taken from it a hundred times slower
    frame: pd.DataFrame = table.drop_columns(["group"] if is_alone else []).to_pandas()
    return frame.assign(group=frame["path"])[names] if is_alone else frame


def _separator(header: str) -> str:
    """Tell what separates the columns of a CSV: what gives its header the most of them."""
    names = {each: next(csv.reader([header], delimiter=each), []) for each in SEPARATORS}
    if set(COLUMNS) <= set(names[","]):
        return ","
    return max(names, key=lambda each: len(names[each]))


def _normalise(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    check_columns(frame, source)
    others = [name for name in frame.columns if name not in COLUMNS]
    frame = frame[[*COLUMNS, *others]]
    for name in COLUMNS:
        frame[name] = _texts(frame[name])
    frame["label"] = _labels(frame["label"])
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


def _labels(texts: "pd.Series[str]") -> "pd.Series[int]":
    """Give labels as numbers; those that are none stay, to be refused with what else is wrong."""
    code, found = pd.factorize(texts)
    values = np.array([LABELS.get(text, text) for text in found], dtype=object)
    kind = np.int64 if set(found) <= LABELS.keys() else object
    return pd.Series(values.astype(kind)[code], index=texts.index)
