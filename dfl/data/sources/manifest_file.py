"""The images of a manifest that somebody wrote, with dfl's columns or those of another tool."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow.parquet as pq

from dfl.data.manifest.manifest import LABELS, Manifest, read_table
from dfl.data.manifest.rules import COLUMNS, SPLITS
from dfl.data.sources.base import Source
from dfl.data.sources.fields import USUAL, Fields, Records, Values, records_frame, text_of
from dfl.data.sources.published import untaken
from dfl.data.sources.table_records import class_names
from dfl.data.sources.words import SIDE_NAMES, called, label_word, may_be_split, split_word
from dfl.errors import ManifestError, named
from dfl.files import checksum_of
from dfl.recipe import Plain, describe
from dfl.types import FAKE, REAL, UNKNOWN

AN_IMAGE: Final = re.compile(r".+\.(jpe?g|png|webp|gif|bmp|tiff?|avif|jp2|hei[cf])", re.IGNORECASE)


@dataclass
class ManifestFile(Source):
    """The images of a manifest that somebody wrote.

    A table with dfl's six columns is taken as it is. In one of another tool, which part of a row is
    the path, the class, the generator, the group, the split and the dataset is told from the names
    of its columns (``filename``, ``image_path``, ``class``, ``is_fake``, ``subset``, ...), and what
    was taken for what is said in one line. Where that is not sure, ``image`` and ``fields`` say it.

    Its splits are kept; images without one are dealt one, and where a dataset has training but no
    validation images, its training part gives some up (none if ``val_fraction`` is 0).

    Args:
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file; relative to the working directory.
        root: The folder of its relative paths; the file's own by default.
        image: The column of the paths; told by its name by default.
        fields: Which columns say what an image is, and which of their values mean real and fake;
            what it leaves out is told by the columns' names.
    """

    path: Path
    root: Path | None = None
    image: str | None = None
    fields: Fields | None = None

    @property
    def title(self) -> str:
        """The name of the file, which is the dataset's where no column says it."""
        return Path(self.path).stem

    def scan(self) -> Manifest:
        """Read the table and check it; see ``Manifest.from_table``.

        Raises:
            ConfigError: If a field's regular expression has not one capture group.
            DataError: If a column is missing or could mean two things, or a value means nothing.
            ManifestError: If the table cannot be read, or breaks a rule of a manifest.
        """
        path = Path(self.path)
        root = path.parent if self.root is None else Path(self.root)
        table = _read(path)
        if self.image is None and self.fields is None and _is_own(table):
            own = Manifest.from_table(table, root, str(path))
            return replace(own, notes=tuple(untaken(own.frame, str(path))))
        foreign = ForeignTable(_without_blanks(table), path, root)
        frame, note = foreign.translate(self.image, self.fields, self.title)
        notes = (note, *untaken(frame, str(path)))
        return Manifest.from_table(frame, root, str(path), notes=notes)

    def recipe(self) -> Plain:
        """Describe the table by its content, so that one that was edited is split anew.

        The root counts as well, since other files may have the same paths there.
        """
        path = Path(self.path)
        content = checksum_of(path) if path.is_file() else None
        told = [self.image, describe(self.fields)] if self.image or self.fields else []
        return ["ManifestFile", content, Path(self.root or path.parent).as_posix(), *told]


@dataclass(frozen=True)
class ForeignTable:
    """A table that another tool wrote.

    Attributes:
        table: Its columns.
        path: Its file.
        root: The folder of its relative paths.
    """

    table: pd.DataFrame
    path: Path
    root: Path

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return [str(name) for name in self.table.columns]

    def translate(
        self, image: str | None, fields: Fields | None, dataset: str
    ) -> tuple[pd.DataFrame, str]:
        """Give it the columns of a manifest.

        Args:
            image: The column of the paths; None to find it.
            fields: Which columns say what an image is; what it leaves out is looked for.
            dataset: The name of the dataset where no column says it.

        Returns:
            The table, and in one line what was taken for what.

        Raises:
            ConfigError: If a field's regular expression has not one capture group.
            DataError: If a value means nothing.
            ManifestError: If a column is missing, or could mean two things.
        """
        image = image or self._image()
        is_told = fields is not None and (fields.label != "label" or "label" in self.columns)
        fields = fields or Fields()
        parts = {
            "label": fields.label if is_told else self._label(fields),
            "dataset": fields.dataset or self._column("dataset"),
            "generator": fields.generator or self._column("generator"),
            "split": fields.split or self._column("split"),
            "group": fields.group or self._column("group"),
        }
        fields = Fields(real=fields.real, fake=fields.fake, **parts)
        if gone := [name for name in (image, *fields.names()) if name not in self.columns]:
            raise self._error(f"no column {named(gone)}; it has {', '.join(self.columns)}")
        is_own = set(COLUMNS) <= set(self.columns)
        values = Values(fields, {"-1": UNKNOWN} if is_own else {})
        paths = self._texts(image)
        has_backslashes = self._has_backslashes(paths)
        records = Records(
            self.path.name,
            [path.replace("\\", "/") for path in paths] if has_backslashes else paths,
            {name: self._texts(name) for name in fields.names()},
            places=[f"row {row + 2}" for row in range(len(paths))],
        )
        frame = records_frame(records, values, dataset)
        values.check(f"{self.path}: ")
        if fields.real == USUAL[REAL] and fields.fake == USUAL[FAKE]:
            self._check_folders(frame)
        used = [image, *fields.names()]
        if is_own:  # of which what else there is was always kept
            kept = [name for name in self.columns if name not in (*COLUMNS, *used)]
            frame[kept] = self.table[kept].to_numpy()
            used += kept
        words = {"label": values.said_of_labels(), "split": values.said_of_splits()}
        said = [f"path from {image!r}" + " (\\ is taken for /)" * has_backslashes]
        for part, name in parts.items():
            if name and (name != part or words.get(part)):
                more = f" ({words[part]})" if words.get(part) else ""
                said.append(f"{part} from {name!r}{more}")
        if unused := [name for name in self.columns if name not in used and not _is_index(name)]:
            said.append(f"not used: {named(unused)}")
        return frame, f"{self.path}: {', '.join(said)}"

    def _image(self) -> str:
        """Find the column of the paths."""
        if any(map(AN_IMAGE.fullmatch, self.columns)):
            raise self._error(
                f"begins with an image ({', '.join(self.columns)}); write the names of its columns "
                "in a row above"
            )
        candidates = called(self.columns, "path")
        names = [name for name in candidates if self._first(name) is not None]
        if "path" in names:
            return "path"
        if len(names) > 1:
            # of a name and a path, the one that leads to the image
            there = [name for name in names if (self.root / str(self._first(name))).is_file()]
            names = there if len(there) == 1 else names
        if not names:
            names = [name for name in self.columns if AN_IMAGE.fullmatch(self._first(name) or "")]
        if len(names) == 1:
            return names[0]
        if names:
            raise self._error(f"its columns {named(names)} could be the paths; name one: image")
        if candidates:
            what = "has the images in it, not their paths; read it with the source Parquet"
        else:
            what = "no column of paths; name one: image"
        raise self._error(f"{what} (it has {', '.join(self.columns) or 'none'})")

    def _label(self, fields: Fields) -> str:
        """Find the column of the classes: one in which all values say a class."""
        names = called(self.columns, "label")
        labels = {name: self._classes(name, fields) for name in names}
        sure = [name for name in names if all(map(len, labels[name]))]
        if len(names) == 1:
            return names[0]  # if its values are not known, that is said of each
        if not sure:
            what = f"its columns {named(names)} say no class" if names else "no column of classes"
            raise self._error(
                f"{what} (it has {', '.join(self.columns)}); name one: fields.label (null where no "
                "class is known), and what it says: fields.real, fields.fake"
            )
        first = sure[0]
        for other in sure[1:]:
            pairs = zip(labels[first], labels[other], strict=True)
            if differ := [row for row, (one, two) in enumerate(pairs) if one != two]:
                said = [f"{name} ({self._texts(name)[differ[0]]})" for name in (first, other)]
                raise self._error(
                    f"its columns {' and '.join(said)} say different classes in {len(differ)} of "
                    f"{len(self.table)} rows, the first is row {differ[0] + 2}; name the right "
                    "one: fields.label, or what its values mean: fields.real, fields.fake"
                )
        return first

    def _check_folders(self, frame: pd.DataFrame) -> None:
        """Refuse labels that are the contrary of what the folders say: 1 is not fake everywhere."""
        folders = frame["path"].map(lambda path: path.rpartition("/")[0])
        said = {
            folder: {label_word(part) for part in folder.split("/") if not part.isdecimal()}
            - {None}
            for folder in folders.unique()
        }
        sure = folders.map(lambda folder: len(said[folder]) == 1)
        known = frame["label"][sure], folders[sure].map(lambda folder: next(iter(said[folder])))
        if len(known[0]) and known[1].nunique() == 2 and (known[0] + known[1] == 1).all():
            raise self._error(
                f"its labels say the contrary of the folders in its paths ({folders[sure].iloc[0]} "
                f"would be {SIDE_NAMES[int(known[0].iloc[0])]}) in all {len(known[0])} rows where "
                "folders say a class; say what they mean: fields.real and fields.fake, such as "
                "real: [1], fake: [0]"
            )

    def _column(self, part: str) -> str | None:
        """Find the column of another part, if there is one."""
        names = called(self.columns, part)
        if part == "split" and names != [part]:
            names = [name for name in names if all(map(may_be_split, set(self._texts(name))))]
        if len(names) > 1:
            raise self._error(
                f"its columns {named(names)} could be the {part}; name one: fields.{part}"
            )
        return names[0] if names else None

    def _classes(self, name: str, fields: Fields) -> list[list[int]]:
        fields = replace(fields, label=name)
        texts = self._texts(name)
        known = {text: fields.labels_of(text) for text in dict.fromkeys(texts)}
        return [known[text] for text in texts]

    def _texts(self, name: str) -> list[str]:
        return [text_of(value) for value in self.table[name].tolist()]

    def _first(self, name: str) -> str | None:
        """Give the first value of a column, None if it is no text."""
        value = self.table[name].iloc[0] if len(self.table) else ""
        return value if isinstance(value, str) else None

    def _has_backslashes(self, paths: Sequence[str]) -> bool:
        """Tell whether paths are written as Windows does; elsewhere a name may have a backslash."""
        first = next((path for path in paths if "\\" in path), None)
        return first is not None and not (self.root / first).exists()

    def _error(self, what: str) -> ManifestError:
        return ManifestError(f"{self.path}: {what}")


def _read(path: Path) -> pd.DataFrame:
    """Read a table, with the names of classes where Hugging Face has kept numbers of them."""
    table = read_table(path)
    if path.suffix.lower() == ".parquet":
        schema = pq.read_schema(path)
        for name in table.columns:
            if names := class_names(schema, name):
                table[name] = table[name].map(names)
    return table


def _is_own(table: pd.DataFrame) -> bool:
    """Tell whether a table has dfl's own columns and words."""
    if not set(COLUMNS) <= set(table.columns):
        return False
    labels, splits = (
        {text_of(value) for value in table[name].unique()} for name in ("label", "split")
    )
    of_fakes = [value for value in table["label"].unique() if text_of(value) == str(FAKE)]
    fakes = table["generator"][table["label"].isin(of_fakes)]
    return not (
        any(text not in LABELS and label_word(text) is not None for text in labels)
        or any(text not in SPLITS and split_word(text) for text in splits)
        or any(text_of(value) == "" for value in fakes.unique())
    )


def _is_index(name: str) -> bool:
    return not name or name.startswith("Unnamed: ")


def _without_blanks(table: pd.DataFrame) -> pd.DataFrame:
    """Take the blanks off names and values where the header has them behind its separators."""
    names = [str(name) for name in table.columns]
    if any(name != name.strip() for name in names):
        table = table.map(lambda value: value.strip() if isinstance(value, str) else value)
    return table.set_axis([name.strip() for name in names], axis="columns")
