"""What all cells of a study are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from sklearn.pipeline import Pipeline

from dfl.errors import ConfigError
from dfl.heads.storage.head_folder import settings
from dfl.study.design.grid import Cell, Conditions
from dfl.study.design.training_sets import TrainingSet


@dataclass(frozen=True)
class StudyInput:
    """All that cells are fitted on; small, so that it can be sent to processes.

    Attributes:
        frames: The manifest's rows by seed; they differ in the split alone.
        features: By condition, the feature folders of each backbone.
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
    features: Mapping[str, Mapping[str, Path]]
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
        for candidates in self.reductions.values():
            for pipeline in candidates:
                settings(pipeline)  # a missing checkpoint shows before there is work done


def judged_condition(cell: Cell, study: StudyInput) -> str:
    """Name the condition that a cell is reported under: the study's first, if it is tested there.

    Otherwise it is the first of those that it is tested under.
    """
    tested = study.conditions[cell.train_condition]
    first = next(iter(study.features))
    return first if first in tested else tested[0]
