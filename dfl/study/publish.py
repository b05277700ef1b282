"""From finished cells to what a person looks at: tables, the chosen detector, the page."""

import json
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.errors import DflError
from dfl.files import writing
from dfl.report.study.summary import StudyPage
from dfl.study.analysis.chosen import chosen_table
from dfl.study.analysis.details import Details, TrainedConfiguration, has_several_generators
from dfl.study.analysis.effects import check_claims, effects
from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.judge import Judge, Results, judge_cells
from dfl.study.analysis.notes import notes
from dfl.study.analysis.ranking import (
    Choice,
    Configuration,
    choose,
    choose_train_set,
    leaders,
    matrix,
    models,
)
from dfl.study.design.grid import Cell
from dfl.study.design.settings import Settings
from dfl.study.export import take_home
from dfl.study.run.cells import CellStore
from dfl.study.run.condition_features import ConditionFeatures
from dfl.study.run.fitting import cause_of
from dfl.study.run.inputs import StudyInput
from dfl.study.run.missing import CellRun
from dfl.study.run.workers import Workers

logger = logging.getLogger(__name__)

_PAGE_VERSION: Final = 4  # raised when the same cells would give another page
_OTHER_HEADS: Final = 8
_HARDEST: Final = 24


def fingerprint_of(run: CellRun, study: StudyInput, settings: Settings) -> str:
    """Identify what a report is made from: finished cells by name, failures, rows, settings.

    Intervals and caveats rest on the rows' groups and generators, which decide no cell's scores.
    """
    facts = [
        _PAGE_VERSION,
        [[str(cell), cell.grid, key] for cell, key in run.keys.items()],
        sorted(str(outcome) for outcome in run.failures),
        [[str(seed), _digest(frame)] for seed, frame in study.frames.items()],
        [[each.name, each.seen, each.generators] for each in study.training_sets.values()],
        list(study.features),
        settings.title,
        settings.metric,
        settings.replicates,
        [str(claim) for claim in settings.claims],
    ]
    return sha256(json.dumps(facts).encode()).hexdigest()


def _digest(frame: pd.DataFrame) -> str:
    hashed = pd.util.hash_pandas_object(frame[["group", "generator"]], index=False)
    return sha256(hashed.to_numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Published:
    """What was written.

    Attributes:
        page: What the report says.
        results: All numbers.
        detector: The chosen detector, for `dfl detect`.
    """

    page: StudyPage
    results: Results
    detector: Path | None


class Publisher:
    """Writes the results of a study.

    Args:
        study: What the cells were fitted on.
        conditions: The features by condition.
        settings: Where the study goes and what it is judged by.
        workers: The processes that judge.
        manifest: The images, for thumbnails.
        checkpoint_of: Gives the checkpoint of a fine-tuned network's cell by its key.
    """

    def __init__(
        self,
        study: StudyInput,
        conditions: Mapping[str, ConditionFeatures],
        settings: Settings,
        workers: Workers,
        *,
        manifest: Manifest,
        checkpoint_of: Callable[[str], Path],
    ) -> None:
        self.checkpoint_of, self.workers = checkpoint_of, workers
        self.study, self.conditions, self.settings, self.manifest = (
            study,
            conditions,
            settings,
            manifest,
        )
        self.first_condition = next(iter(conditions))

    def publish(self, run: CellRun, facts: Sequence[tuple[str, str]]) -> Published:
        """Judge all cells, and write tables, the chosen detector and the page's content.

        Args:
            run: The finished cells and the failures.
            facts: Numbers of the study that the page shows.

        Returns:
            What was written.
        """
        cells = list(run.keys)
        settings = self.settings
        results = judge_cells(
            cells,
            run.keys,
            self.study,
            self.workers,
            metric=settings.metric,
            replicates=settings.replicates,
        )
        write_tables(results.table, settings.out)
        store = CellStore(self.study.folder)
        with writing(settings.out / "cells.csv") as partial:
            chosen_table(cells, run.keys, self.study).to_csv(partial, index=False)
        estimator = Estimator(results, settings.metric, self.first_condition)
        train_set = choose_train_set(estimator, list(self.study.training_sets))
        choices = choose(estimator, train_set=train_set)
        judge = Judge(self.study, metric=settings.metric, replicates=settings.replicates)
        details = Details(judge, estimator, run.keys, store)
        own = _cells_of(cells, choices[0].configuration, train_set) if choices else []
        detector, troubles = self._take_home(own[0], run.keys[own[0]]) if own else (None, [])
        page = self._page(run, facts, estimator, details, choices, train_set, detector, troubles)
        return Published(page, results, detector)

    def _take_home(self, cell: Cell, key: str) -> tuple[Path | None, list[str]]:
        """Store the chosen detector; what goes wrong must not cost the report."""
        try:
            found = take_home(
                cell,
                key,
                self.study,
                self.conditions,
                out=self.settings.out,
                checkpoint_of=self.checkpoint_of,
            )
        except (DflError, OSError) as err:
            logger.warning("the chosen detector could not be stored: %s", err)
            return None, [f"The chosen detector could not be stored: {cause_of(err)}."]
        return found, []

    def _page(
        self,
        run: CellRun,
        facts: Sequence[tuple[str, str]],
        estimator: Estimator,
        details: Details,
        choices: list[Choice],
        train_set: str,
        detector: Path | None,
        troubles: list[str],
    ) -> StudyPage:
        settings = self.settings
        ranked = leaders(estimator, train_set=train_set)
        chosen = self._chosen(list(run.keys), choices, train_set)
        others = self._best_of_other_heads(ranked, list(run.keys), choices, train_set)
        metrics = [details.metrics(each) for each in chosen]
        roc = details.roc_curves([*chosen, *others[:4]])
        pairs = [details.comparison(chosen[0], other) for other in others] if chosen else []
        by_generator = has_several_generators(next(iter(self.study.frames.values())))
        return StudyPage(
            title=settings.title,
            subtitle=self._subtitle(len(run.keys)),
            metric=settings.metric,
            train_set=train_set,
            created=datetime.now(UTC).date().isoformat(),
            facts=list(facts),
            choices=_choice_table(choices),
            leaders=ranked.drop(columns=["val_rank", "configuration"]),
            models=models(ranked),
            matrices={
                choice.criterion: matrix(estimator, choice.configuration, by_generator=by_generator)
                for choice in _distinct(choices)
            },
            effects=effects(estimator),
            claims=check_claims(estimator, settings.claims),
            comparisons=_corrected([pair for pair in pairs if pair is not None]),
            metrics=pd.concat(metrics, ignore_index=True) if metrics else pd.DataFrame(),
            roc=roc,
            hardest=details.hardest(chosen[0], self.manifest, _HARDEST) if chosen else [],
            failures=pd.DataFrame(
                [{"cell": str(o.cell), "cause": o.cause} for o in run.failures],
                columns=["cell", "cause"],
            ),
            notes=[*troubles, *notes(self.study, estimator)],
            commands=self._commands(detector),
            config=settings.config,
        )

    def _chosen(
        self, cells: Sequence[Cell], choices: list[Choice], train_set: str
    ) -> list[TrainedConfiguration]:
        """The chosen configurations, trained on the same set."""
        return [
            TrainedConfiguration(choice.configuration.words(self.first_condition), own)
            for choice in _distinct(choices)
            if (own := _cells_of(cells, choice.configuration, train_set))
        ]

    def _best_of_other_heads(
        self, ranked: pd.DataFrame, cells: Sequence[Cell], choices: list[Choice], train_set: str
    ) -> list[TrainedConfiguration]:
        """The best of every other head, by validation, trained on the same set."""
        if not choices:
            return []
        by_val = ranked.sort_values("val_rank", kind="stable")
        found: dict[str, TrainedConfiguration] = {}
        for configuration in by_val["configuration"]:
            head = configuration.head
            if head != choices[0].configuration.head and head not in found:
                own = _cells_of(cells, configuration, train_set)
                found[head] = TrainedConfiguration(configuration.words(self.first_condition), own)
        return list(found.values())[:_OTHER_HEADS]

    def _subtitle(self, cells: int) -> str:
        sets = self.study.training_sets
        frame = next(iter(self.study.frames.values()))
        datasets = ", ".join(frame["dataset"].unique())
        return (
            f"{cells} detectors of AI-generated images, from {len(sets)} training sets, each "
            f"tested on the held-out images of {datasets}."
        )

    def _commands(self, detector: Path | None) -> list[str]:
        config = str(self.settings.out / "config.yaml")
        commands = [["dfl", "study", "--config", config]]
        if detector is not None:
            images = ["--images", "FOLDER", "--out", "scores.csv"]
            commands.append(["dfl", "detect", "--detector", str(detector), *images])
        return [shlex.join(command) for command in commands]


def write_tables(table: pd.DataFrame, out: Path) -> None:
    """Write the tidy results as CSV and Parquet."""
    with writing(out / "results.csv") as partial:
        table.to_csv(partial, index=False, float_format="%.6g")
    with writing(out / "results.parquet") as partial:
        table.to_parquet(partial, index=False)


def _corrected(pairs: list[dict[str, object]]) -> pd.DataFrame:
    """Add to each comparison its p-value corrected for their number (Holm, 1979)."""
    table = pd.DataFrame(pairs)
    if table.empty:
        return table
    order = table["p"].sort_values(kind="stable").index
    steps = range(len(table), 0, -1)
    scaled = [p * step for p, step in zip(table["p"][order], steps, strict=True)]
    holm = pd.Series(np.minimum(np.maximum.accumulate(scaled), 1), index=order)
    return table.assign(p_holm=holm)


def _choice_table(choices: Sequence[Choice]) -> pd.DataFrame:
    rows = [
        choice.configuration._asdict()
        | {
            "criterion": choice.criterion,
            "train_set": choice.train_set or "each training set",
            "val": choice.val,
            "test": choice.test.value,
            "low": choice.test.low,
            "high": choice.test.high,
            "why": choice.why,
        }
        for choice in choices
    ]
    columns = ["criterion", "features", "reduction", "head", "train_set", "train_condition"]
    return pd.DataFrame(rows, columns=[*columns, "val", "test", "low", "high", "why"])


def _distinct(choices: Sequence[Choice]) -> list[Choice]:
    """One choice a configuration."""
    return list({choice.configuration: choice for choice in reversed(choices)}.values())[::-1]


def _cells_of(cells: Sequence[Cell], configuration: Configuration, train_set: str) -> list[Cell]:
    own = [cell for cell in cells if Configuration.of(cell) == configuration]
    return [cell for cell in own if cell.train_set == train_set]
