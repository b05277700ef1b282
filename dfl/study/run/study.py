"""The inputs of all cells of a study, and the key of each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline

from dfl.errors import ConfigError
from dfl.evaluation import best_threshold, known_rows, platt_scaling, threshold_at_fpr
from dfl.heads.estimators.provenance import provenance_of, takes_provenance
from dfl.heads.storage.head_folder import settings
from dfl.recipe import Plain, Recipe
from dfl.study.design.folds import Folds, nested_folds
from dfl.study.design.grid import Cell, Conditions
from dfl.study.design.training_sets import (
    Rows,
    TrainingSet,
    held_out_rows,
    rows_to_test,
    split_rows,
)
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
        nested: Whether heads are validated on families and sources that they have not learnt from
            (see `nested_folds`); else on the split ``val``.
        matched: The datasets whose classes come from one pipeline and show the same subjects.
        max_fpr: The share of photographs of any source that may be called fake at the threshold,
            where validation is nested.
        draws: By the name of draws, which is a condition of training, the conditions whose images
            are learnt from together.

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
    nested: bool = False
    matched: tuple[str, ...] = ()
    max_fpr: float = 0.05
    draws: Mapping[str, Sequence[str]] = field(default_factory=dict)

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

    def is_nested(self, cell: Cell) -> bool:
        """Whether a cell is validated by `folds`; networks, trained once, are by the split."""
        return self.nested and cell.head in self.heads

    def rows(self, cell: Cell, split: str) -> Rows:
        """List the rows of a cell's training set that are in a split, each image once.

        Where validation is nested, all that is neither left out nor tested is learnt from
        (``train``), and what has a fold is validated on as well (``val``).
        """
        key = cell.train_set, cell.seed, split, self.is_nested(cell)
        if key not in self._rows:
            training_set = self.training_sets[cell.train_set]
            frame = self.frames[cell.seed]
            splits = ("train", "val") if self.is_nested(cell) else (split,)
            rows = split_rows(frame, training_set, *splits)
            if self.is_nested(cell) and split == "val":
                rows = rows[self.folds(cell).validated[rows] >= 0]
            self._rows[key] = rows
        return self._rows[key]

    def folds(self, cell: Cell) -> Folds:
        """Give the folds of a cell's training set, whose validation is nested."""
        key = cell.train_set, cell.seed
        if key not in self._folds:
            frame = self.frames[cell.seed]
            learnt = self.training_sets[cell.train_set].rows & (
                frame["split"].isin(("train", "val")).to_numpy()
            )
            self._folds[key] = nested_folds(frame, learnt, matched=self.matched, seed=cell.seed)
        return self._folds[key]

    def scored_rows(self, cell: Cell) -> Rows:
        """List the rows that a cell has scores of.

        They are validation and test; where validation is nested, or something was left out, all of
        known label.
        """
        return self._every[cell.seed] if self.is_apart(cell) else self.held_out[cell.seed]

    def splits(self, cell: Cell) -> npt.NDArray[np.object_]:
        """Say of every row that a cell scores whether it validates (``val``) or tests the cell.

        Returns:
            ``val``, ``test`` or empty, in the order of `scored_rows`.
        """
        frame = self.frames[cell.seed]
        if not self.is_apart(cell):
            return frame["split"].to_numpy(object)[self.held_out[cell.seed]]
        found = np.full(len(frame), "", dtype=object)
        if self.is_nested(cell):
            found[self.folds(cell).validated >= 0] = "val"
        else:
            own = self.training_sets[cell.train_set].rows
            found[own & (frame["split"] == "val").to_numpy()] = "val"
        found[rows_to_test(frame, self.training_sets[cell.train_set])] = "test"
        return found[self.scored_rows(cell)]

    def is_apart(self, cell: Cell) -> bool:
        """Whether a cell's training set decides which images validate and test it."""
        return self.is_nested(cell) or self.training_sets[cell.train_set].left_out is not None

    def learnt_conditions(self, cell: Cell) -> list[str]:
        """Name the conditions whose images a cell learns from: that of training, or its draws."""
        return list(self.draws.get(cell.train_condition, [cell.train_condition]))

    def validated_condition(self, cell: Cell) -> str:
        """Name the condition that a cell is validated under: that of training.

        Draws are for training alone: who learns from them is validated as it is reported.
        """
        is_drawn = cell.train_condition in self.draws
        return self.judged_condition(cell) if is_drawn else cell.train_condition

    def scored_conditions(self, cell: Cell) -> list[str]:
        """Name the conditions that a cell has scores under: of validation, then of testing."""
        validated, tested = self.validated_condition(cell), self.conditions[cell.train_condition]
        return list(dict.fromkeys([validated, *tested]))

    def judged_condition(self, cell: Cell) -> str:
        """Name the condition that a cell is reported under: the first, if it is tested there.

        Otherwise it is the first of those that it is tested under.
        """
        tested = self.conditions[cell.train_condition]
        return self.first_condition if self.first_condition in tested else tested[0]

    def operating_point(self, cell: Cell, scores: Scores) -> tuple[float, tuple[float, float]]:
        """Choose threshold and calibration on the training set's own validation images.

        The threshold is that of the highest balanced accuracy; where validation is nested, the
        lowest at which no source of photographs, new to the head that scored it, has more than
        ``max_fpr`` false positives.

        Args:
            cell: The cell.
            scores: Its scores, those under the condition of validation at least.

        Returns:
            The threshold, and slope and intercept of the log-odds of fake.
        """
        frame, scored = self.frames[cell.seed], self.scored_rows(cell)
        own = np.isin(scored, self.rows(cell, "val"))
        label = frame["label"].to_numpy(dtype=np.int64)[scored[own]]
        reference = scores[self.validated_condition(cell)][own]
        scaling = platt_scaling(reference, label)
        if not self.is_nested(cell):
            return best_threshold(reference, label), scaling
        source = frame["source"].to_numpy(object)[scored[own]]
        return threshold_at_fpr(reference, label, source, max_fpr=self.max_fpr), scaling

    def key(self, cell: Cell) -> str:
        """Identify a head on features by everything that decides its scores."""
        learnt = self.learnt_conditions(cell)
        seen = {
            condition: self.features[condition].fingerprints(cell.features)
            for condition in dict.fromkeys([*self.scored_conditions(cell), *learnt])
        }
        train: list[Plain] = [cell.train_condition, seen[learnt[0]]]
        if cell.train_condition in self.draws:
            train = ["draws", [seen[condition] for condition in learnt]]
        recipe: Recipe = {
            # by name too: scores are kept under the names of their conditions
            "train": train,
            "test": [[name, seen[name]] for name in self.conditions[cell.train_condition]],
            "reduction": self._described["reduction", cell.reduction],
            "head": self._described["head", cell.head],
            "sees": self.judged_condition(cell),
        }
        if takes_provenance(self.heads[cell.head]):
            recipe["provenance"] = self._provenance_hashes[cell.seed]
        return cell_key(cell.seed, self.recipe_of_rows(cell) | recipe)

    def recipe_of_rows(self, cell: Cell) -> Recipe:
        """Identify what a cell learns from and what it scores."""
        training_set = self.training_sets[cell.train_set]
        recipe: Recipe = {
            "rows": self._row_hashes[cell.seed],
            "learns_from": _sha256(training_set.rows),
        }
        if training_set.left_out is not None:
            recipe["left_out"] = _sha256(training_set.left_out)
        if self.is_nested(cell):
            folds = self.folds(cell)
            recipe["folds"] = [
                _sha256(each)
                for each in (folds.validated, folds.family, folds.source, folds.groups)
            ]
            recipe["matched"] = [*self.matched]
            recipe["max_fpr"] = self.max_fpr
        return recipe

    @cached_property
    def held_out(self) -> dict[int, Rows]:
        """By seed, the rows of validation and test; see `held_out_rows`."""
        return {seed: held_out_rows(frame) for seed, frame in self.frames.items()}

    @cached_property
    def _every(self) -> dict[int, Rows]:
        return {
            seed: known_rows(frame).index.to_numpy(dtype=np.int64)
            for seed, frame in self.frames.items()
        }

    @cached_property
    def _rows(self) -> dict[tuple[str, int, str, bool], Rows]:
        return {}

    @cached_property
    def _folds(self) -> dict[tuple[str, int], Folds]:
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
    def _provenance_hashes(self) -> dict[int, str]:
        return {
            seed: _sha256(pd.util.hash_pandas_object(provenance_of(frame), index=False).to_numpy())
            for seed, frame in self.frames.items()
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
