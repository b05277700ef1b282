"""A study from its plan to its report, as the command runs it."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Final

from lightning.pytorch.loggers import WandbLogger

from dfl.data.manifest.manifest import Manifest
from dfl.errors import StudyError
from dfl.files import writing
from dfl.report.study.page import write_study_page
from dfl.report.study.terminal import print_study
from dfl.report.study.wandb import log_study
from dfl.study.design.grid import Cell
from dfl.study.design.settings import Settings
from dfl.study.publish import Published, Publisher, fingerprint_of
from dfl.study.run.baselines import Baselines
from dfl.study.run.cells import CellStore
from dfl.study.run.features import FeatureFolders
from dfl.study.run.fitting import cause_of, held_out_rows, split_rows
from dfl.study.run.inputs import StudyInput
from dfl.study.run.keys import CellKeys
from dfl.study.run.missing import CellRun, run_missing
from dfl.study.run.plan import StudyPlan, forward_passes
from dfl.study.run.time_estimate import cell_seconds
from dfl.study.run.workers import Workers
from dfl.types import backbone_of

log = logging.getLogger(__name__)

_STATE: Final = "study.json"
_PACKAGES: Final = ("dfl", "torch", "timm", "scikit-learn", "numpy")
_NUMBERS: Final = ("results.csv", "results.parquet", "cells.csv")


class WholeStudy:
    """Plans, runs and reports.

    Args:
        study: What cells are fitted on.
        cells: The cells.
        folders: The features.
        baselines: Networks that are fine-tuned, for comparison.
        settings: Where it goes and what it is judged by.
        workers: The processes that fit and judge cells.
    """

    def __init__(
        self,
        study: StudyInput,
        cells: Sequence[Cell],
        folders: FeatureFolders,
        baselines: Baselines,
        settings: Settings,
        workers: Workers,
    ) -> None:
        self.study, self.cells, self.folders, self.settings = study, cells, folders, settings
        self.baselines, self.workers = baselines, workers
        self.started = time.monotonic()
        self.plan = self._plan()

    def print_plan(self) -> None:
        """Say what there is to do before anything is done."""
        plan = self.plan
        sets, seeds = len(self.study.training_sets), len(self.study.frames)
        print(f"{self.settings.title}")
        print(
            f"cells: {plan.cells} ({sets} training sets, {len(self.study.conditions)} training "
            f"conditions, {seeds} seeds), {plan.cells_done} of them done before"
        )
        if networks := len(self.baselines.missing(self.study)):
            print(f"networks to fine-tune: {networks}, whose time is not in the estimate")
        conditions, backbones = (
            len(self.study.features),
            len(next(iter(self.study.features.values()))),
        )
        print(
            f"forward passes: {plan.passes} ({plan.images} images x {conditions} conditions x "
            f"{backbones} backbones), {plan.passes_done} made before; "
            f"{plan.passes_saved} saved against cells that each make their own"
        )
        if plan.seconds is not None:
            print(
                f"time left: about {_duration(plan.seconds)} on {self.workers.count} "
                "processes (backbones timed on the CPU)"
            )

    def finish(self, manifest: Manifest, logger: WandbLogger | None) -> None:
        """Fit what is missing, and write the report if anything is new.

        Args:
            manifest: The images.
            logger: Lightning's W&B logger; None for none.
        """
        extracted = time.monotonic()
        run = run_missing(self.cells, self.study, self.folders.conditions, self.workers)
        run = self._with_baselines(run)
        fingerprint = fingerprint_of(run, self.study, self.settings)
        if self._is_published(fingerprint, logged=logger is not None):
            again = (
                f"; {len(run.failures)} failed again: {run.failures[0].cause}"
                if run.failures
                else ""
            )
            print(f"nothing to do: {len(run.keys)} cells are there{again}; {self.settings.page}")
            return
        if not run.keys:
            cause = run.failures[0].cause
            raise StudyError(f"all {len(run.failures)} cells failed; the first one: {cause}")
        # until all is written, nothing in the folder is known to belong together
        (self.settings.out / _STATE).unlink(missing_ok=True)
        publisher = Publisher(
            self.study,
            self.folders.conditions,
            self.settings,
            self.workers,
            manifest=manifest,
            checkpoint_of=self.baselines.checkpoint,
        )
        facts = self._facts(run, extracted - self.started)
        published = publisher.publish(run, facts)
        write_study_page(published.page, self.settings.page)
        out = self.settings.out
        files = {"Report": self.settings.page, "All numbers": out / "results.csv"}
        files["Every cell"] = out / "cells.csv"
        if published.detector is not None:
            files["Chosen detector"] = published.detector
        state = {
            "fingerprint": fingerprint,
            "logged": False,
            "facts": dict(facts),
            "files": [path.relative_to(out).as_posix() for path in files.values()],
        }
        self._note(state)
        print_study(published.page, files)
        if logger is not None:
            self._log(logger, published, state)

    def _log(self, logger: WandbLogger, published: Published, state: dict[str, object]) -> None:
        """Send the results to W&B; whatever it throws must not cost them."""
        try:
            files = [self.settings.out / name for name in _NUMBERS]
            log_study(logger, published.page, published.results.table, files)
        except Exception as err:
            log.warning(
                "W&B: the study could not be logged (%s); it is there, and the same command tries "
                "again",
                cause_of(err),
            )
            return
        self._note(state | {"logged": True})

    def _note(self, state: dict[str, object]) -> None:
        """Note what the report is of, and which files belong to it."""
        with writing(self.settings.out / _STATE) as partial:
            partial.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")

    def _with_baselines(self, run: CellRun) -> CellRun:
        keys = self.baselines.keys(self.study)
        outcomes = self.baselines.run(self.study)
        failures = [outcome for outcome in outcomes if outcome.cause is not None]
        failed = {outcome.cell for outcome in failures}
        return CellRun(
            run.keys | {cell: key for cell, key in keys.items() if cell not in failed},
            [*run.failures, *failures],
            run.fitted + len(outcomes) - len(failures),
            run.seconds,
        )

    def _plan(self) -> StudyPlan:
        pending = self.folders.pending
        needed, done, saved = forward_passes(
            self.cells,
            self.study.conditions,
            images=self.folders.images,
            folders=pending,
            needs=self._images_of(),
        )
        missing = self._missing()
        left = sum(
            count * self.folders.seconds_per_image(name)
            for (_, name), count in pending.items()
            if count
        )
        left += cell_seconds(missing, self.study, self.folders.dims) / self.workers.count
        return StudyPlan(
            cells=len(self.cells),
            cells_done=len(self.cells) - len(missing),
            images=self.folders.images,
            passes=needed,
            passes_done=done,
            passes_saved=saved,
            seconds=left if missing or done < needed else None,
        )

    def _missing(self) -> list[Cell]:
        """Cells that are not there yet; those whose features are not there cannot be."""
        key_of = CellKeys(self.study, self.folders.conditions)
        keys = {cell: key_of(cell) for cell in self.cells if self._has_features(cell)}
        there = CellStore(self.study.folder).usable(set(keys.values()))
        return [cell for cell in self.cells if keys.get(cell) not in there]

    def _has_features(self, cell: Cell) -> bool:
        backbones = {backbone_of(layer) for layer in cell.features}
        seen = {cell.train_condition, *self.study.conditions[cell.train_condition]}
        return all(self.folders.has(condition, name) for condition in seen for name in backbones)

    def _images_of(self) -> Callable[[Cell], tuple[int, int]]:
        """Count the images that a cell learns from and those that it scores, each once."""

        @cache
        def count(train_set: str, seed: int) -> tuple[int, int]:
            frame = self.study.frames[seed]
            learnt_from = split_rows(frame, self.study.training_sets[train_set], "train")
            return len(learnt_from), frame["path"].iloc[held_out_rows(frame)].nunique()

        return lambda cell: count(cell.train_set, cell.seed)

    def _is_published(self, fingerprint: str, *, logged: bool) -> bool:
        try:
            state = json.loads((self.settings.out / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if not isinstance(state, dict) or state.get("fingerprint") != fingerprint:
            return False
        files = [*state.get("files", []), *_NUMBERS]
        there = all((self.settings.out / name).exists() for name in files)
        return there and (not logged or bool(state.get("logged")))

    def _facts(self, run: CellRun, extraction: float) -> list[tuple[str, str]]:
        plan = self.plan
        failed = f", and {len(run.failures)} that failed" if run.failures else ""
        return [
            ("images", str(plan.images)),
            ("cells", f"{len(run.keys)}{failed}"),
            ("cells fitted in this run", str(run.fitted)),
            ("forward passes", str(plan.passes)),
            ("made in this run", str(plan.passes - plan.passes_done)),
            ("saved by the store", str(plan.passes_saved)),
            ("seeds", ", ".join(str(seed) for seed in self.study.frames)),
            ("time of planning and features in this run", _duration(extraction)),
            ("time of the cells in this run", _duration(run.seconds)),
            ("time of all cells, one after the other", _duration(self._cell_seconds(run))),
            ("processes", str(self.workers.count)),
            ("versions", ", ".join(f"{name} {version(name)}" for name in _PACKAGES)),
        ]

    def _cell_seconds(self, run: CellRun) -> float:
        store = CellStore(self.study.folder)
        return sum(float(str(store.info(key).get("seconds", 0))) for key in run.keys.values())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
