"""What the report of a study says, from the numbers of its cells."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.report.study.content import UNMATCHED, StudyPage
from dfl.study.analysis.details import Details, TrainedConfiguration, has_several_generators
from dfl.study.analysis.effects import check_claims, effects
from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.judge import Judge
from dfl.study.analysis.notes import notes
from dfl.study.analysis.ranking import Choice, Configuration, leaders, matrix, models
from dfl.study.analysis.unseen import matched_training_sets, unseen_table
from dfl.study.design.grid import Cell
from dfl.study.design.settings import Settings
from dfl.study.run.cells import CellStore
from dfl.study.run.missing import CellRun
from dfl.study.run.study import Study

_OTHER_HEADS: Final = 8
_HARDEST: Final = 24


def study_page(
    run: CellRun,
    study: Study,
    settings: Settings,
    estimator: Estimator,
    choices: Sequence[Choice],
    *,
    train_set: str,
    facts: Sequence[tuple[str, str]],
    manifest: Manifest,
    detector: Path | None,
    troubles: Sequence[str],
) -> StudyPage:
    """Put together what a report shows.

    Args:
        run: The finished cells and the failures.
        study: What they are made from.
        settings: What the study is judged by.
        estimator: The numbers of all cells.
        choices: The configurations that validation chose.
        train_set: What the detector to take home is trained on.
        facts: Numbers of the study.
        manifest: The images, for thumbnails.
        detector: The chosen detector, where it could be stored.
        troubles: What went wrong on the way, in sentences.

    Returns:
        The content of the page, the terminal's summary and W&B's tables.
    """
    cells, condition = list(run.keys), study.first_condition
    judge = Judge(study, metric=settings.metric, replicates=settings.replicates)
    details = Details(judge, estimator, run.keys, CellStore(study.folder))
    ranked = leaders(estimator, train_set=train_set)
    by_choice = {choice.configuration: choice.criterion for choice in reversed(choices)}
    configurations = dict(reversed(by_choice.items()))
    chosen = [
        TrainedConfiguration(configuration.words(condition), own)
        for configuration in configurations
        if (own := cells_of(cells, configuration, train_set))
    ]
    others = _best_of_other_heads(ranked, cells, choices, train_set, condition)
    metrics = [details.metrics(each) for each in chosen]
    pairs = [details.comparison(chosen[0], other) for other in others] if chosen else []
    by_generator = has_several_generators(study.frame)
    return StudyPage(
        title=settings.title,
        subtitle=f"{len(cells)} detectors of AI-generated images, from {len(study.training_sets)} "
        "training sets, each tested on the held-out images of "
        f"{', '.join(study.frame['dataset'].unique())}.",
        metric=settings.metric,
        train_set=train_set,
        created=datetime.now(UTC).date().isoformat(),
        facts=list(facts),
        choices=_choice_table(choices, study),
        leaders=ranked.drop(columns=["val_rank", "configuration"]),
        models=models(ranked),
        matrices={
            criterion: matrix(estimator, configuration, by_generator=by_generator)
            for configuration, criterion in configurations.items()
        },
        effects=effects(estimator),
        claims=check_claims(estimator, settings.claims),
        comparisons=_corrected([pair for pair in pairs if pair is not None]),
        unseen=unseen_table(
            estimator,
            matched_training_sets(study),
            choices[0].configuration if choices else None,
        ),
        metrics=pd.concat(metrics, ignore_index=True) if metrics else pd.DataFrame(),
        roc=details.roc_curves([*chosen, *others[:4]]),
        hardest=details.hardest(chosen[0], manifest, _HARDEST) if chosen else [],
        failures=pd.DataFrame(
            [{"cell": str(o.cell), "cause": o.cause} for o in run.failures],
            columns=["cell", "cause"],
        ),
        notes=[*troubles, *notes(study, estimator, manifest)],
        commands=_commands(settings.out, detector),
        config=settings.config,
    )


def cells_of(cells: Sequence[Cell], configuration: Configuration, train_set: str) -> list[Cell]:
    """List the cells of a configuration that are trained on a set, one a seed."""
    own = [cell for cell in cells if Configuration.of(cell) == configuration]
    return [cell for cell in own if cell.train_set == train_set]


def _best_of_other_heads(
    ranked: pd.DataFrame,
    cells: Sequence[Cell],
    choices: Sequence[Choice],
    train_set: str,
    condition: str,
) -> list[TrainedConfiguration]:
    """The best of every other head, by validation, trained on the same set."""
    if not choices:
        return []
    found: dict[str, TrainedConfiguration] = {}
    for configuration in ranked.sort_values("val_rank", kind="stable")["configuration"]:
        head = configuration.head
        if head != choices[0].configuration.head and head not in found:
            own = cells_of(cells, configuration, train_set)
            found[head] = TrainedConfiguration(configuration.words(condition), own)
    return list(found.values())[:_OTHER_HEADS]


def _commands(out: Path, detector: Path | None) -> list[str]:
    commands = [["dfl", "study", "--config", str(out / "config.yaml")]]
    if detector is not None:
        images = ["--images", "FOLDER", "--out", "scores.csv"]
        commands.append(["dfl", "detect", "--detector", str(detector), *images])
    return [shlex.join(command) for command in commands]


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


def _choice_table(choices: Sequence[Choice], study: Study) -> pd.DataFrame:
    all_matched = set(study.frame["dataset"]) <= {*study.matched}
    words = "" if all_matched else f"; not all of these datasets are matched: {UNMATCHED}"
    rows = [
        choice.configuration._asdict()
        | {
            "criterion": choice.criterion,
            "train_set": choice.train_set or "each training set",
            "val": choice.val,
            "test": choice.test.value,
            "low": choice.test.low,
            "high": choice.test.high,
            "why": choice.why + ("" if choice.scope == "dataset" else words),
        }
        for choice in choices
    ]
    columns = ["criterion", "features", "reduction", "head", "train_set", "train_condition"]
    return pd.DataFrame(rows, columns=[*columns, "val", "test", "low", "high", "why"])
