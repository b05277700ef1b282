"""The inputs of all cells of a study, and the key of each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline

from dfl.errors import ConfigError
from dfl.evaluation import best_threshold, platt_scaling
from dfl.heads.storage.head_folder import settings
from dfl.recipe import Plain, Recipe
from dfl.study.design.grid import Cell, Conditions
from dfl.study.design.training_sets import Rows, TrainingSet, held_out_rows, split_rows
from dfl.study.run.cells import Scores, cell_key
from dfl.study.run.condition_features import ConditionFeatures


@dataclass(frozen=True)
class Study:
    """All that cells are made from; small, so that it can be sent to processes.

    Attributes:
        frames: The manifest's rows by seed; they differ in the split alone.
        features: The features by condition; the first one is how images come.
        conditions: By condition of training, the conditions of testing.
        training_sets: The training sets by name.
        reductions: Candidates by name, of which validation chooses; none for no reduction.
        heads: Candidates by name, of which validation chooses.
        folder: Where finished cells are kept.

    Raises:
        ConfigError: If a head has no candidate.
        CheckpointError: If the checkpoint of a bottleneck cannot be read.
    """

    frames: Mapping[int, pd.DataFrame]
    features: Mapping[str, ConditionFeatures]
    conditions: Conditions
    training_sets: Mapping[str, TrainingSet]
    reductions: Mapping[str, Sequence[Pipeline]]
    heads: Mapping[str, Sequence[Pipeline]]
    folder: Path

    def __post_init__(self) -> None:
        for name, candidates in self.heads.items():
            if not candidates:
                raise ConfigError(
                    f"heads.{name}: no candidate; give at least one, such as "
                    "class_path: dfl.heads.estimators.lda"
                )
        _ = self._described  # a missing checkpoint shows before there is work done

    @property
    def frame(self) -> pd.DataFrame:
        """The rows of the first seed, where splits do not matter."""
        return next(iter(self.frames.values()))

    @property
    def first_condition(self) -> str:
        """How images come."""
        return next(iter(self.features))

    def rows(self, cell: Cell, split: str) -> Rows:
        """List the rows of a cell's training set that are in a split, each image once."""
        key = cell.train_set, cell.seed, split
        if key not in self._rows:
            training_set = self.training_sets[cell.train_set]
            self._rows[key] = split_rows(self.frames[cell.seed], training_set, split)
        return self._rows[key]

    def scored_conditions(self, cell: Cell) -> list[str]:
        """Name the conditions that a cell has scores under: of training, then those of testing."""
        return list(dict.fromkeys([cell.train_condition, *self.conditions[cell.train_condition]]))

    def judged_condition(self, cell: Cell) -> str:
        """Name the condition that a cell is reported under: the first, if it is tested there.

        Otherwise it is the first of those that it is tested under.
        """
        tested = self.conditions[cell.train_condition]
        return self.first_condition if self.first_condition in tested else tested[0]

    def operating_point(self, cell: Cell, scores: Scores) -> tuple[float, tuple[float, float]]:
        """Choose threshold and calibration on the training set's own validation images.

        Args:
            cell: The cell.
            scores: Its scores, those under the condition of training at least.

        Returns:
            The threshold, and slope and intercept of the log-odds of fake.
        """
        frame, held_out = self.frames[cell.seed], self.held_out[cell.seed]
        own = np.isin(held_out, self.rows(cell, "val"))
        label = frame["label"].to_numpy(dtype=np.int64)[held_out[own]]
        reference = scores[cell.train_condition][own]
        return best_threshold(reference, label), platt_scaling(reference, label)

    def key(self, cell: Cell) -> str:
        """Identify a head on features by everything that decides its scores."""
        seen = {
            condition: self.features[condition].fingerprints(cell.features)
            for condition in self.scored_conditions(cell)
        }
        recipe: Recipe = {
            # by name too: scores are kept under the names of their conditions
            "train": [cell.train_condition, seen[cell.train_condition]],
            "test": [[name, seen[name]] for name in self.conditions[cell.train_condition]],
            "reduction": self._described["reduction", cell.reduction],
            "head": self._described["head", cell.head],
            "sees": self.judged_condition(cell),
        }
        return cell_key(cell.seed, self.recipe_of_rows(cell) | recipe)

    def recipe_of_rows(self, cell: Cell) -> Recipe:
        """Identify what a cell learns from and what it scores."""
        return {
            "rows": self._row_hashes[cell.seed],
            "learns_from": _sha256(self.training_sets[cell.train_set].rows),
        }

    @cached_property
    def held_out(self) -> dict[int, Rows]:
        """By seed, the rows that every cell scores; see `held_out_rows`."""
        return {seed: held_out_rows(frame) for seed, frame in self.frames.items()}

    @cached_property
    def _rows(self) -> dict[tuple[str, int, str], Rows]:
        return {}

    @cached_property
    def _described(self) -> dict[tuple[str, str], Plain]:
        axes = {"head": self.heads, "reduction": self.reductions}
        return {
            (axis, name): [settings(pipeline) for pipeline in candidates]
            for axis, choices in axes.items()
            for name, candidates in choices.items()
        }

    @cached_property
    def _row_hashes(self) -> dict[int, str]:
        columns = ["path", "dataset", "label", "split"]
        return {
            seed: _sha256(pd.util.hash_pandas_object(frame[columns], index=False).to_numpy())
            for seed, frame in self.frames.items()
        }


def _sha256(array: npt.NDArray[np.generic]) -> str:
    return sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
