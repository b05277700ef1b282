"""Finished cells on disk: each is complete or not there, and named after all that decides it.

cell.json               the cell, what validation chose for it, and seconds
scores.npz              by condition, its scores
head.json, head.skops   the fitted head, as `dfl detect` takes it, unless storing it costs too much
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dfl.artifacts import Kind, Store, key_of
from dfl.errors import DflError, HeadError, StudyError, one_line
from dfl.files import VISIBLE_S, appears
from dfl.heads.storage.head_folder import HEAD, HEAD_MODEL, is_light, write_head
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.recipe import Plain, Recipe
from dfl.study.design.grid import Cell

logger = logging.getLogger(__name__)

CELL_VERSION: Final = 2
"""Raised when the same cell would give other scores, or is kept in another form."""

_SCORES: Final = "scores.npz"
CELL: Final = Kind(
    name="cell of a study",
    error=StudyError,
    document="cell.json",
    format=1,
    files=(_SCORES, HEAD.document),
    loose=(HEAD_MODEL,),  # the head's own description has its checksum
)

Scores = dict[str, npt.NDArray[np.float64]]
"""By condition, a score for each validation and test row of known label, in manifest order."""


def cell_key(seed: int, facts: Mapping[str, Plain]) -> str:
    """Identify a cell by all that decides its scores.

    Args:
        seed: Its seed; its names do not count.
        facts: Fingerprints of features, rows and settings.

    Returns:
        32 hexadecimal digits.
    """
    known: Recipe = dict(facts) | {
        "version": CELL_VERSION,
        "scikit-learn": version("scikit-learn"),
        "seed": seed,
    }
    return key_of(known)


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        cell: The cell.
        cause: Why it failed, in one line; None for success.
    """

    cell: Cell
    cause: str | None = None


def cause_of(err: Exception) -> str:
    """Say in one line why something failed; an error that is not ours comes with its type."""
    return one_line(err if isinstance(err, DflError) else f"{type(err).__name__}: {err}")


class CellStore:
    """A folder of finished cells.

    Args:
        folder: The folder; made when the first cell is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = Store(CELL, folder)

    def finished(self) -> set[str]:
        """List the keys of all cells that are there; their files are not opened."""
        return self._store.keys()

    def usable(self, keys: Iterable[str], *, warn: bool = False) -> set[str]:
        """List which of some cells are there and whole.

        A disk that was full, or a copy that was cut short, leaves files that are not.

        Args:
            keys: The keys to look for.
            warn: Whether the log says which files are damaged and are made anew.

        Returns:
            The keys whose cells are there and undamaged.
        """
        there = self.finished().intersection(keys)
        return {key for key in sorted(there) if self._store.get(key, warn=warn) is not None}

    def wait_for(self, keys: Iterable[str]) -> None:
        """Wait until cells are seen here that a process of another machine has kept.

        Raises:
            StudyError: If one is not seen in time.
        """
        for key in keys:
            file = self._store.path(key) / CELL.document
            if not appears(file, patience_s=VISIBLE_S):
                raise StudyError(
                    f"{file}: a worker has kept it, and it is not seen here; the study's folder "
                    "has to be on a file system that all machines see"
                )

    def keep(
        self,
        key: str,
        cell: Cell,
        scores: Scores,
        info: Recipe,
        *,
        head: SklearnHead | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Write a finished cell.

        Args:
            key: Its key.
            cell: The cell, for people who open the file.
            scores: What it gave.
            info: What was chosen on validation, and seconds.
            head: What gave them; kept where that costs little.
            counts: How many images the head was trained on, ``real`` and ``fake``.

        Raises:
            HeadError: If a score is not finite, as those of a network whose training diverged.
        """
        for condition, score in scores.items():
            if odd := int(np.count_nonzero(~np.isfinite(score))):
                raise HeadError(
                    f"{odd} of {len(score)} scores under the condition {condition} are not finite; "
                    "the training diverged, so lower its learning rate"
                )
        arrays = {f"condition:{condition}": score for condition, score in scores.items()}
        about: Recipe = {"cell": {**asdict(cell), "features": list(cell.features)}}
        with self._store.making(key, about | info) as folder:
            # numpy 2.1 has a setting among the names, which the types mix up with the arrays
            np.savez(folder / _SCORES, **arrays)  # type: ignore[arg-type]
            if head is not None and is_light(head.pipeline):
                try:
                    write_head(head, folder, counts=counts or {})
                except HeadError as err:  # scores are scores, of a foreign estimator too
                    logger.info("%s: its head is not kept: %s", cell, err)

    def read(self, key: str) -> tuple[Scores, Recipe]:
        """Read a finished cell: its scores by condition, and what was kept with them.

        Raises:
            StudyError: If it is not there, or its description is damaged.
        """
        info = self.info(key)
        with np.load(self._store.path(key) / _SCORES, allow_pickle=False) as content:
            scores = {name.removeprefix("condition:"): content[name] for name in content.files}
        return scores, info

    def info(self, key: str) -> Recipe:
        """Read what was kept with a finished cell, without its scores.

        Raises:
            StudyError: If it is not there, or damaged.
        """
        return CELL.read(self._store.path(key))

    def head(self, key: str) -> Path | None:
        """Name the folder of a cell's head; None where it is not kept, or damaged."""
        folder = self._store.path(key)
        if not (folder / HEAD.document).exists():
            return None
        if HEAD.damaged(folder, HEAD.read(folder)):
            logger.warning("%s: damaged; the head is fitted anew", folder / HEAD_MODEL)
            return None
        return folder
