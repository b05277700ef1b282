"""The baselines of a study: networks fine-tuned end to end, in the same tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Final

import numpy as np
import pandas as pd

from dfl.artifacts import Store
from dfl.backbones.precision import SettledPrecision
from dfl.data import ImageDataModule, Manifest
from dfl.data.images.transforms import Augmentation
from dfl.errors import ConfigError
from dfl.features.images import hash_images
from dfl.features.shards import extraction_fingerprint, method_fingerprint
from dfl.heads.tasks.finetune import FineTuneTask
from dfl.progress import progress
from dfl.recipe import Recipe, describe
from dfl.study.design.grid import Cell
from dfl.study.run.cells import CellStore, Scores, cell_key
from dfl.study.run.finetuning import (
    NETWORK,
    checkpoint_of,
    fine_tune,
    score_network,
    training_settings,
)
from dfl.study.run.fitting import Outcome, cause_of, held_out_rows, split_rows
from dfl.study.run.inputs import StudyInput
from dfl.study.run.keys import CellKeys

BASELINE_GRID: Final = "fine-tuned"


@dataclass
class FineTuning:
    """How the baselines of a study are trained; each on one device.

    Args:
        max_epochs: Epochs at most, at least 1.
        patience: Epochs without a better validation loss after which a training ends; None never
            does.
        train_sets: Names of the training sets that they are trained on; all of them by default.
    """

    max_epochs: int = 30
    patience: int | None = 5
    train_sets: list[str] | None = None

    def __post_init__(self) -> None:
        if self.max_epochs < 1 or (self.patience is not None and self.patience < 1):
            raise ConfigError(f"finetuning: max_epochs and patience must be at least 1, got {self}")


class Baselines:
    """Trains networks end to end on a study's training sets, and keeps them as cells.

    Args:
        tasks: The networks by name.
        data: The images; its augmentations and its crop for training are for these alone.
        conditions: Perturbations by condition; training is under the first.
        settings: How they are trained.
        out: The study's folder.
        accelerator: Lightning's accelerator.
        precision: Numeric precision.
    """

    def __init__(
        self,
        tasks: Mapping[str, FineTuneTask],
        data: ImageDataModule,
        conditions: Mapping[str, list[Augmentation]],
        settings: FineTuning,
        *,
        out: Path,
        accelerator: str,
        precision: SettledPrecision,
    ) -> None:
        self.tasks, self.conditions, self.settings = tasks, conditions, settings
        self._data = data
        self._networks = Store(NETWORK, out / "baselines")
        self._trainings: dict[str, str] = {}
        self._accelerator = accelerator
        self._precision = precision

    def cells(self, study: StudyInput) -> list[Cell]:
        """List one cell for each network, training set and seed.

        Raises:
            ConfigError: If a training set is not one of the study.
        """
        first = next(iter(self.conditions))
        if self.tasks and self.conditions[first]:
            raise ConfigError(
                f"conditions: the first one, {first}, changes the images, and baselines are "
                "trained on images as they come; put a condition without transforms (none: []) "
                "before it"
            )
        wanted = self.settings.train_sets or list(study.training_sets)
        for name in wanted:
            if name not in study.training_sets:
                raise ConfigError(
                    f"finetuning.train_sets: no {name!r}; there are: "
                    f"{', '.join(study.training_sets)}"
                )
        return [
            Cell(BASELINE_GRID, (name,), "none", "end to end", train_set, first, seed)
            for seed in study.frames
            for train_set in wanted
            for name in self.tasks
        ]

    def keys(self, study: StudyInput) -> dict[Cell, str]:
        """Give the key of each cell: images, rows, network and settings decide it."""
        rows = CellKeys(study, {})
        found: dict[Cell, str] = {}
        for cell in self.cells(study):
            training: Recipe = rows.facts_of_rows(cell) | {
                "images": self._images,
                "network": training_settings(self.tasks[cell.features[0]]),
                "train_transforms": describe([self._data.train_crop, self._data.train_transforms]),
                "max_epochs": self.settings.max_epochs,
                "patience": self.settings.patience,
                "batch_size": self._data.batch_size,
            }
            tested = {
                condition: self.conditions[condition]
                for condition in study.conditions[cell.train_condition]
            }
            key = cell_key(cell, training | {"test": describe(tested)})
            # what it is tested under has no part in the training, which a further condition shares
            self._trainings[key] = cell_key(cell, training)
            found[cell] = key
        return found

    def missing(self, study: StudyInput, *, warn: bool = False) -> dict[Cell, str]:
        """Give the cells that are not there yet, or cannot be read, with their keys.

        Args:
            study: The study.
            warn: Whether the log says which files cannot be read and are made again.
        """
        keys = self.keys(study)
        there = CellStore(study.folder).usable(keys.values(), warn=warn)
        return {cell: key for cell, key in keys.items() if key not in there}

    def checkpoint(self, key: str) -> Path:
        """Name the checkpoint of a finished cell."""
        return checkpoint_of(self._networks, self._trainings[key])

    def run(self, study: StudyInput) -> list[Outcome]:
        """Train what is not there yet, one after the other.

        Returns:
            The outcome of each cell that was trained now.
        """
        store = CellStore(study.folder)
        missing = self.missing(study, warn=True)
        outcomes = []
        with progress("fine-tune", len(missing), unit="network") as bar:
            for cell, key in missing.items():
                start = monotonic()
                try:
                    scores = self._train(cell, key, study)
                    store.keep(key, cell, scores, {"seconds": round(monotonic() - start, 3)})
                except Exception as err:  # whatever it is, it is this network's alone
                    outcomes.append(Outcome(cell, cause_of(err)))
                else:
                    outcomes.append(Outcome(cell))
                bar.update()
        return outcomes

    @cached_property
    def _images(self) -> str:
        """Identify the images, all of which are read for it."""
        method = method_fingerprint((), preprocess=self._data.preprocess(), run=self._precision)
        return extraction_fingerprint(hash_images(self._data.manifest), method)

    def _train(self, cell: Cell, key: str, study: StudyInput) -> Scores:
        frame = study.frames[cell.seed]
        training_set = study.training_sets[cell.train_set]
        learnt = np.concatenate(
            [split_rows(frame, training_set, split) for split in ("train", "val")]
        )
        train, held = (self._manifest(frame.iloc[rows]) for rows in (learnt, held_out_rows(frame)))
        task = self.tasks[cell.features[0]]
        checkpoint = fine_tune(
            task,
            train,
            data=self._data,
            store=self._networks,
            key=self._trainings[key],
            max_epochs=self.settings.max_epochs,
            patience=self.settings.patience,
            seed=cell.seed,
            accelerator=self._accelerator,
            precision=self._precision,
        )
        wanted = [cell.train_condition, *study.conditions[cell.train_condition]]
        return {
            condition: score_network(
                task,
                checkpoint,
                held,
                data=self._data,
                eval_transforms=self.conditions[condition],
                accelerator=self._accelerator,
                precision=self._precision,
            )
            for condition in dict.fromkeys(wanted)
        }

    def _manifest(self, frame: pd.DataFrame) -> Manifest:
        return Manifest(frame.reset_index(drop=True), self._data.manifest.root)
