"""Finished cells on disk: each is complete or not there, and named after all that decides it."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from dfl.errors import HeadError
from dfl.files import writing
from dfl.recipe import Plain, Recipe, fingerprint_of
from dfl.study.design.grid import Cell

__all__ = ["CELL_VERSION", "CellStore", "Scores", "cell_key"]

logger = logging.getLogger(__name__)

CELL_VERSION: Final = 1
"""Raised when the same cell would give other scores."""

Scores = dict[str, npt.NDArray[np.float64]]
"""By condition, a score for each validation and test row of known label, in manifest order."""


def cell_key(cell: Cell, facts: Mapping[str, Plain]) -> str:
    """Identify a cell by all that decides its scores.

    Args:
        cell: The cell; names count only where they stand for a seed, everything else is in `facts`.
        facts: Fingerprints of features, rows and settings.

    Returns:
        32 hexadecimal digits.
    """
    known = dict(facts) | {
        "version": CELL_VERSION,
        "scikit-learn": version("scikit-learn"),
        "seed": cell.seed,
    }
    return fingerprint_of(known)[:32]


class CellStore:
    """A folder of finished cells.

    Args:
        folder: The folder; made when the first cell is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def finished(self) -> set[str]:
        """List the keys of all cells that are there; their files are not opened."""
        return {file.stem for file in self.folder.glob("[0-9a-f]*.npz")}

    def readable(self, key: str) -> bool:
        """Tell whether a cell is there and can be read to its end."""
        try:
            self.read(key)
        except (OSError, EOFError, KeyError, ValueError, BadZipFile):
            return False
        return True

    def usable(self, keys: Iterable[str], *, warn: bool = False) -> set[str]:
        """List which of some cells are there and can be read.

        A disk that was full, or a copy that was cut short, leaves files that cannot.

        Args:
            keys: The keys to look for.
            warn: Whether the log says which files cannot be read and are made again.

        Returns:
            The keys of the others, as far as they are there.
        """
        there = self.finished().intersection(keys)
        damaged = {key for key in there if not self.readable(key)}
        for key in sorted(damaged) if warn else ():
            logger.warning("%s cannot be read; it is made again", self.folder / f"{key}.npz")
        return there - damaged

    def keep(self, key: str, cell: Cell, scores: Scores, info: Recipe) -> None:
        """Write a finished cell.

        Args:
            key: Its key.
            cell: The cell, for people who open the file.
            scores: What it gave.
            info: What was chosen on validation, and seconds.

        Raises:
            HeadError: If a score is not finite, as those of a network whose training diverged.
        """
        for condition, score in scores.items():
            if odd := int(np.count_nonzero(~np.isfinite(score))):
                raise HeadError(
                    f"{odd} of {len(score)} scores under the condition {condition} are not finite; "
                    "the training diverged, so lower its learning rate"
                )
        text = json.dumps({"cell": asdict(cell)} | info)
        arrays = {f"condition:{condition}": score for condition, score in scores.items()}
        with writing(self.folder / f"{key}.npz") as partial, partial.open("wb") as file:
            # numpy 2.1 has a setting among the names, which the types mix up with the arrays
            np.savez(file, info=np.array(text), **arrays)  # type: ignore[arg-type]

    def read(self, key: str) -> tuple[Scores, Recipe]:
        """Read a finished cell: its scores by condition, and what was kept with them."""
        with self._open(key) as content:
            scores = {
                name.removeprefix("condition:"): content[name]
                for name in content.files
                if name.startswith("condition:")
            }
            return scores, json.loads(str(content["info"]))

    def info(self, key: str) -> Recipe:
        """Read what was kept with a finished cell, without its scores."""
        with self._open(key) as content:
            info: Recipe = json.loads(str(content["info"]))
        return info

    @contextmanager
    def _open(self, key: str) -> Iterator["np.lib.npyio.NpzFile"]:
        # numpy leaves a file open whose end is missing, unless it is opened here
        with (
            (self.folder / f"{key}.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as content,
        ):
            yield content
