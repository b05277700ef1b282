"""Which copies of which photographs there are to be, and which are there."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal, TypeAlias

import numpy as np
import pandas as pd

from dfl.artifacts import KEY_DIGITS, Kind, key_of
from dfl.data import COLUMNS, Manifest
from dfl.data.containers.base import SEPARATOR
from dfl.data.manifest.provenance import with_provenance
from dfl.errors import ConfigError, DataError, named
from dfl.files import OWN_TOKEN
from dfl.recipe import Plain, Recipe, describe, fingerprint_of
from dfl.reconstruct.copies import read_note, size_of_copy
from dfl.reconstruct.mixing import Mixing, Patches
from dfl.types import FAKE, REAL

Jpeg: TypeAlias = Literal["none", "same"]

MANIFEST: Final = "manifest.csv"
PATCHES: Final = "patches.npz"
ORIGINAL: Final = "real"
"""The folder of the photographs themselves, and what stands for a generator in their rows."""
VERSION: Final = 1  # raised when the same settings would give other pixels

RECONSTRUCTIONS: Final = Kind(
    name="folder of reconstructions",
    error=DataError,
    document="reconstructions.json",
    format=1,
    files=(MANIFEST, PATCHES, "*.safetensors"),
    make="make it with `dfl reconstruct`",
)
_NAME: Final = re.compile(r"\w[\w+-]*")


@dataclass(frozen=True)
class Settings:
    """What becomes of every photograph, whatever reconstructs it.

    Attributes:
        unit: What the sides of a copy are multiples of, in pixels.
        max_side: The longest side of a copy, in pixels; None for any.
        jpeg: Whether a copy is compressed once more as its photograph was.
        mixing: How copies are mixed with their photographs; None for not at all.
        seed: The seed of what is drawn for that.
    """

    unit: int
    max_side: int | None
    jpeg: Jpeg
    mixing: Mixing | None
    seed: int

    def recipe(self, reconstructor: Plain) -> Recipe:
        """Describe what makes the copies of one reconstructor."""
        looks: Recipe = {"version": VERSION, "unit": self.unit, "max_side": self.max_side}
        if reconstructor is None:  # the photograph itself
            return looks
        if self.mixing is not None:
            looks |= {"mixing": describe(self.mixing), "seed": self.seed}
        return looks | {"jpeg": self.jpeg, "reconstructor": reconstructor}


@dataclass(frozen=True)
class Plan:
    """The copies of the photographs that are trained on.

    Attributes:
        out: Where they go, a folder for each reconstructor and one for the photographs themselves.
        rows: The rows of these photographs, in whatever datasets they are.
        settings: What becomes of every photograph.
        contents: By path, the SHA-256 of a photograph's bytes, hexadecimal.
        families: By reconstructor, the family of its images.
        recipes: By folder, what makes the copies in it.
    """

    out: Path
    rows: Manifest
    settings: Settings
    contents: Mapping[str, str]
    families: Mapping[str, str]
    recipes: Mapping[str, Recipe]

    def file(self, folder: str, path: str) -> Path:
        """Name the copy of a photograph.

        Args:
            folder: The name of a reconstructor, or ``ORIGINAL``.
            path: The photograph, as its manifest has it.
        """
        return self.out / copy_path(folder, path)

    def note(self, folder: str, path: str) -> str:
        """Say what a copy is made of: what makes it, and the content of its photograph."""
        return f"{key_of(self.recipes[folder])} {self.contents[path][:KEY_DIGITS]}"

    def missing(self, path: str) -> tuple[list[str], list[str]]:
        """Look which copies of a photograph are there; they are read.

        Args:
            path: The photograph.

        Returns:
            The folders in which there is none, or one that is damaged or of what the photograph was
            before; and those of them in which another one is in its place.
        """
        missing, others = [], []
        for folder in self.recipes:
            wanted = self.note(folder, path)
            found = read_note(self.file(folder, path))
            if found != wanted:
                missing.append(folder)
                if found is not None and found.split(" ")[0] != wanted.split(" ")[0]:
                    others.append(folder)
        return missing, others

    def fingerprint(self) -> str:
        """Hash what makes the whole folder."""
        recipes: Plain = dict(self.recipes)
        return fingerprint_of([recipes, dict(self.contents), self.table().to_csv(index=False)])

    def table(self) -> pd.DataFrame:
        """Make the manifest: of each row of a photograph one for it and one for each copy.

        Beside the columns of every manifest it has ``family``, that of the reconstructor, and
        ``source``, that of the photograph.
        """
        frame = self.rows.frame
        tables = []
        for folder in self.recipes:
            is_copy = folder != ORIGINAL
            table = frame[[*COLUMNS]].assign(
                path=[copy_path(folder, path) for path in frame["path"]],
                label=FAKE if is_copy else REAL,
                family=self.families[folder] if is_copy else "",
                source=frame["source"],
            )
            tables.append(table.assign(generator=folder) if is_copy else table)
        return pd.concat(tables, ignore_index=True)

    def begin(self) -> None:
        """Say no longer that the folder is whole, and clear what a killed run has left."""
        (self.out / RECONSTRUCTIONS.document).unlink(missing_ok=True)
        own = re.compile(rf"\..+\.{OWN_TOKEN}\.png")
        for left in self.out.rglob(".*.png"):
            if own.fullmatch(left.name):
                left.unlink()

    def seal(self) -> None:
        """Write the manifest, and say that the folder is whole.

        Where copies are mixed, a column ``mixed`` says how, and ``patches.npz`` has by path which
        patches are the copy's.
        """
        table, patches = self.table(), dict[str, Patches]()
        if self.settings.mixing is not None:
            table, patches = self._mixed(self.settings.mixing, table)
        manifest = Manifest(table, self.out)
        manifest.validate(str(self.out))
        manifest.write(self.out / MANIFEST)
        (self.out / PATCHES).unlink(missing_ok=True)
        if patches:
            np.savez(self.out / PATCHES, **patches)  # type: ignore[arg-type]  # no path is an option
        made_by: Plain = dict(self.recipes)
        description: Recipe = {"format": RECONSTRUCTIONS.format, "fingerprint": self.fingerprint()}
        RECONSTRUCTIONS.describe(self.out, description | {"made_by": made_by})

    def _mixed(
        self, mixing: Mixing, table: pd.DataFrame
    ) -> tuple[pd.DataFrame, dict[str, Patches]]:
        """Draw once more what was drawn for each copy."""
        said, patches = dict[str, str](), dict[str, Patches]()
        for folder in self.families:
            for path in self.contents:
                copy = copy_path(folder, path)
                height, width = size_of_copy(self.out / copy)
                draw = mixing.draw(self.settings.seed, folder, path, height, width)
                said[copy] = str(draw)
                if draw.patches is not None:
                    patches[copy] = draw.patches
        return table.assign(mixed=table["path"].map(said).fillna("")), patches


def training_photographs(manifest: Manifest) -> Manifest:
    """Take the photographs that are trained on: never one of validation or test.

    Args:
        manifest: Images with their splits.

    Returns:
        Their rows, with the column ``source``.

    Raises:
        DataError: If there is none.
    """
    frame = with_provenance(manifest.frame)
    rows = frame[(frame["label"] == REAL) & (frame["split"] == "train")]
    if rows.empty:
        photographs = frame[frame["label"] == REAL]["path"].nunique()
        raise DataError(
            f"no photograph is trained on, of {photographs} real images: give real images that "
            "are not all marked as test or val, or lower splits.test_fraction"
        )
    return Manifest(rows.reset_index(drop=True), manifest.root)


def copy_path(folder: str, path: str) -> str:
    """Name the copy of a photograph in the folder of all copies.

    Args:
        folder: The name of a reconstructor, or ``ORIGINAL``.
        path: The photograph, as its manifest has it: relative, absolute, or in a container.
    """
    parts = PurePosixPath(path.replace(SEPARATOR, "/")).parts
    inside = ["up" if part == ".." else part for part in parts if part != "/"]
    return "/".join([folder, *inside]) + ".png"


def check_names(names: Sequence[str]) -> None:
    """Refuse names of reconstructors that cannot be those of folders and generators.

    Args:
        names: The names.

    Raises:
        ConfigError: If there is none, or one cannot be.
    """
    if not names:
        raise ConfigError("reconstructors: there is none; give at least one by name")
    if wrong := [name for name in names if not _NAME.fullmatch(name) or name == ORIGINAL]:
        raise ConfigError(
            f"reconstructors: {named(wrong)} cannot be a generator's name; take letters, digits, "
            f"_, + and -, and not {ORIGINAL!r}, which the photographs are called"
        )
