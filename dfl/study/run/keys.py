"""The names of finished cells: hashes of all that decides their scores."""

from collections.abc import Mapping
from functools import cache
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.heads.storage.head_folder import settings
from dfl.recipe import Plain
from dfl.study.design.grid import Cell
from dfl.study.run.cells import cell_key
from dfl.study.run.condition_features import ConditionFeatures
from dfl.study.run.inputs import StudyInput, judged_condition


class CellKeys:
    """Identify cells by everything that decides their scores.

    Args:
        study: What cells are fitted on.
        conditions: The features by condition.
    """

    def __init__(self, study: StudyInput, conditions: Mapping[str, ConditionFeatures]) -> None:
        self._study = study
        self._conditions = conditions
        self._rows = cache(self._hash_rows)
        self._training_set = cache(self._hash_training_set)
        self._features = cache(self._fingerprints)

    def __call__(self, cell: Cell) -> str:
        """Give the key of a cell; 32 hexadecimal digits."""
        study = self._study
        facts: dict[str, Plain] = {
            # by name too: scores are kept under the names of their conditions
            "train": [cell.train_condition, self._features(cell.train_condition, cell.features)],
            "test": [
                [condition, self._features(condition, cell.features)]
                for condition in study.conditions[cell.train_condition]
            ],
            "reduction": [settings(p) for p in study.reductions[cell.reduction]],
            "head": [settings(p) for p in study.heads[cell.head]],
            "sees": judged_condition(cell, study),
        }
        return cell_key(cell, self.facts_of_rows(cell) | facts)

    def facts_of_rows(self, cell: Cell) -> dict[str, Plain]:
        """Identify what a cell learns from and what it scores."""
        return {
            "rows": self._rows(cell.seed),
            "learns_from": self._training_set(cell.train_set),
        }

    def _hash_rows(self, seed: int) -> str:
        table = self._study.frames[seed][["path", "dataset", "label", "split"]]
        return _sha256(pd.util.hash_pandas_object(table, index=False).to_numpy())

    def _hash_training_set(self, name: str) -> str:
        return _sha256(self._study.training_sets[name].rows)

    def _fingerprints(self, condition: str, features: tuple[str, ...]) -> list[Plain]:
        return self._conditions[condition].fingerprints(features)


def _sha256(array: npt.NDArray[np.generic]) -> str:
    return sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
