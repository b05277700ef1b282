"""The baselines of a study: networks fine-tuned end to end, or a little, in the same tables."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Final

import numpy as np

from dfl.artifacts import Store
from dfl.backbones.precision import SettledPrecision
from dfl.data import ImageDataModule, Manifest
from dfl.data.images.transforms import Augmentation
from dfl.errors import ConfigError
from dfl.features.hashing import hash_images
from dfl.features.shards import extraction_fingerprint, method_fingerprint
from dfl.heads.tasks.tune import TuneTask
from dfl.progress import progress
from dfl.recipe import Recipe, describe
from dfl.study.design.grid import Cell
from dfl.study.run.cells import CellStore, Outcome, Scores, cause_of, cell_key
from dfl.study.run.finetuning import (
    NETWORK,
    Baseline,
    checkpoint_of,
    fine_tune,
    score_network,
    training_settings,
    values_in,
)
from dfl.study.run.study import Study
from dfl.study.run.workers import DeviceWorkers

logger = logging.getLogger(__name__)

BASELINE_GRID: Final = "fine-tuned"
_DIED: Final = (
    "its process died, most likely for want of memory; give fewer data.num_workers, or fewer "
    "devices, on each of which a network is trained"
)


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
    """Trains networks on a study's training sets, from images, and keeps them as cells.

    Args:
        tasks: The networks by name.
        settings: How they are trained.
        study: The study.
        data: The images; its augmentations and its crop for training are for these alone.
        conditions: Transforms by condition; training is under the first.
        out: The study's folder.
        accelerator: Lightning's accelerator.
        devices: The numbers of its devices; so many networks are trained at once, one on each.
        precision: Numeric precision.

    Attributes:
        cells: One cell for each network, training set and seed.

    Raises:
        ConfigError: If the first condition changes images, or a training set is not of the study.
    """

    def __init__(
        self,
        tasks: Mapping[str, Baseline],
        settings: FineTuning,
        study: Study,
        data: ImageDataModule,
        conditions: Mapping[str, list[Augmentation]],
        *,
        out: Path,
        accelerator: str,
        devices: Sequence[int],
        precision: SettledPrecision,
    ) -> None:
        first = study.first_condition
        if tasks and conditions[first]:
            raise ConfigError(
                f"conditions: the first one, {first}, changes the images, and baselines are "
                "trained on images as they come; put a condition without transforms (none: []) "
                "before it"
            )
        wanted = settings.train_sets or list(study.training_sets)
        for name in wanted:
            if name not in study.training_sets:
                raise ConfigError(
                    f"finetuning.train_sets: no {name!r}; there are: "
                    f"{', '.join(study.training_sets)}"
                )
        self.cells = [
            Cell(BASELINE_GRID, (name,), "none", _head_of(task), train_set, first, seed)
            for seed in study.frames
            for train_set in wanted
            for name, task in tasks.items()
        ]
        self.tasks, self.settings, self._study = tasks, settings, study
        self._data, self._conditions = data, conditions
        self._networks = Store(NETWORK, out / "baselines")
        self._accelerator, self._devices, self._precision = accelerator, devices, precision

    @cached_property
    def keys(self) -> dict[Cell, str]:
        """The key of each cell: images, rows, network and settings decide it."""
        found: dict[Cell, str] = {}
        for cell in self.cells:
            tested = {
                condition: self._conditions[condition]
                for condition in self._study.conditions[cell.train_condition]
            }
            found[cell] = cell_key(cell.seed, self._recipe(cell) | {"test": describe(tested)})
        return found

    def missing(self, *, warn: bool = False) -> list[Cell]:
        """List the cells that are not there yet, or cannot be read.

        Args:
            warn: Whether the log says which files cannot be read and are made again.
        """
        there = CellStore(self._study.folder).usable(self.keys.values(), warn=warn)
        return [cell for cell, key in self.keys.items() if key not in there]

    def checkpoint(self, cell: Cell) -> Path:
        """Name the checkpoint of a finished cell."""
        return checkpoint_of(self._networks, self._training(cell))

    def run(self) -> list[Outcome]:
        """Train what is not there yet, on all devices at once.

        Returns:
            The outcome of each cell that was trained now.
        """
        missing = self.missing(warn=True)
        made: dict[Cell, Outcome] = {}
        with progress("fine-tune", len(missing), unit="network") as bar:
            for outcome in self._outcomes(missing):
                made[outcome.cell] = outcome
                bar.update()
        return [made[cell] for cell in missing]

    def _outcomes(self, missing: Sequence[Cell]) -> Iterator[Outcome]:
        """Train networks, the next ones as devices become free; their outcomes as they come."""
        if min(len(missing), len(self._devices)) < 2:
            for cell in missing:
                yield self._make(cell, device=self._devices[0], shown=True)
            return
        with DeviceWorkers(self._devices) as workers:
            found = workers.run(Baselines._make, missing, self, folder=self._study.folder)
            for done, (place, outcome) in enumerate(found, 1):
                logger.info("fine-tuning %d of %d ended: %s", done, len(missing), missing[place])
                yield outcome or Outcome(missing[place], _DIED)

    def _make(self, cell: Cell, *, device: int, shown: bool = False) -> Outcome:
        """Train a network, score with it, and keep the scores."""
        start = monotonic()
        try:
            scores = self._train(cell, device=device, shown=shown)
            info: Recipe = {
                "seconds": round(monotonic() - start, 3),
                "values": values_in(self.checkpoint(cell)),
            }
            CellStore(self._study.folder).keep(self.keys[cell], cell, scores, info)
        except Exception as err:  # whatever it is, it is this network's alone
            return Outcome(cell, cause_of(err))
        return Outcome(cell)

    def _training(self, cell: Cell) -> str:
        """Identify a training; what it is tested under has no part in it."""
        return cell_key(cell.seed, self._recipe(cell))

    def _recipe(self, cell: Cell) -> Recipe:
        return self._study.recipe_of_rows(cell) | {
            "images": self._images,
            "network": training_settings(self.tasks[cell.features[0]]),
            "train_transforms": describe([self._data.train_crop, self._data.train_transforms]),
            "max_epochs": self.settings.max_epochs,
            "patience": self.settings.patience,
            "batch_size": self._data.batch_size,
            **({"batch_by_group": True} if self._data.batch_by_group else {}),
        }

    @cached_property
    def _images(self) -> str:
        """Identify the images, all of which are read for it."""
        method = method_fingerprint(
            (), preprocess=self._data.preprocess(), execution=self._precision
        )
        return extraction_fingerprint(hash_images(self._data.manifest), method)

    def _train(self, cell: Cell, *, device: int, shown: bool) -> Scores:
        frame = self._study.frames[cell.seed]
        learnt = np.concatenate([self._study.rows(cell, split) for split in ("train", "val")])
        train, held_out = (
            Manifest(frame.iloc[rows].reset_index(drop=True), self._data.manifest.root)
            for rows in (learnt, self._study.scored_rows(cell))
        )
        task = self.tasks[cell.features[0]]
        checkpoint = fine_tune(
            task,
            train,
            data=self._data,
            store=self._networks,
            key=self._training(cell),
            max_epochs=self.settings.max_epochs,
            patience=self.settings.patience,
            seed=cell.seed,
            accelerator=self._accelerator,
            device=device,
            precision=self._precision,
            shown=shown,
        )
        return {
            condition: score_network(
                task,
                checkpoint,
                held_out,
                data=self._data,
                eval_transforms=self._conditions[condition],
                accelerator=self._accelerator,
                device=device,
                precision=self._precision,
                shown=shown,
            )
            for condition in self._study.scored_conditions(cell)
        }


def _head_of(task: Baseline) -> str:
    return task.trainable if isinstance(task, TuneTask) else "end to end"
