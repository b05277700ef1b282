"""From finished cells to a report: judged, the chosen detector stored, all of it written."""

import json
import logging
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pandas as pd
from lightning.pytorch.loggers import WandbLogger

from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.provenance import PROVENANCE
from dfl.errors import DflError, StudyError
from dfl.evaluation import METRICS
from dfl.files import writing
from dfl.recipe import Plain, fingerprint_of
from dfl.report.study.content import StudyPage
from dfl.report.study.page import write_study_page
from dfl.report.study.terminal import print_study
from dfl.report.study.wandb import log_study
from dfl.study.analysis.chosen import chosen_table
from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.judge import judge_cells
from dfl.study.analysis.ranking import choose, choose_train_set
from dfl.study.analysis.unseen import choose_for_unseen, matched_training_sets
from dfl.study.design.grid import Cell
from dfl.study.design.settings import Settings
from dfl.study.export import take_home
from dfl.study.page import cells_of, study_page
from dfl.study.run.baselines import Baselines
from dfl.study.run.cells import cause_of
from dfl.study.run.missing import CellRun
from dfl.study.run.plan import StudyPlan, duration
from dfl.study.run.study import Study
from dfl.study.run.workers import Workers

log = logging.getLogger(__name__)

_PAGE_VERSION: Final = 5  # raised when the same cells would give another page
_STATE: Final = "study.json"
_NUMBERS: Final = ("results.csv", "results.parquet", "cells.csv")
_PACKAGES: Final = ("dfl", "torch", "timm", "scikit-learn", "numpy")


def publish(
    run: CellRun,
    study: Study,
    settings: Settings,
    workers: Workers,
    *,
    plan: StudyPlan,
    baselines: Baselines,
    manifest: Manifest,
    prepared_s: float,
    logger: WandbLogger | None,
) -> None:
    """Write the report, unless the one that is there is of these cells.

    Args:
        run: The finished cells and the failures.
        study: What they are made from.
        settings: Where the study goes and what it is judged by.
        workers: The processes that judge.
        plan: What there was to do.
        baselines: The fine-tuned networks.
        manifest: The images, for thumbnails.
        prepared_s: Seconds until the features were there.
        logger: Lightning's W&B logger; None for none.

    Raises:
        StudyError: If no cell is there.
    """
    out = settings.out
    fingerprint = report_fingerprint(run, study, settings)
    if _is_published(out, fingerprint, logged=logger is not None):
        failed = len(run.failures)
        again = f"; {failed} failed again: {run.failures[0].cause}" if failed else ""
        print(f"nothing to do: {len(run.keys)} cells are there{again}; {settings.page}")
        return
    if not run.keys:
        cause = run.failures[0].cause
        raise StudyError(f"all {len(run.failures)} cells failed; the first one: {cause}")
    # until all is written, nothing in the folder is known to belong together
    (out / _STATE).unlink(missing_ok=True)
    results = judge_cells(
        list(run.keys),
        run.keys,
        study,
        workers,
        metric=settings.metric,
        replicates=settings.replicates,
    )
    chosen = chosen_table(list(run.keys), run.keys, study)
    _write_tables(results.table, chosen, out)
    estimator = Estimator(results, settings.metric, study.first_condition)
    train_set = choose_train_set(estimator, list(study.training_sets))
    choices = choose(estimator, train_set=train_set)
    if (unseen := choose_for_unseen(estimator, matched_training_sets(study))) is not None:
        choices.insert(0, unseen)
    own = cells_of(list(run.keys), choices[0].configuration, train_set) if choices else []
    detector, troubles = _detector(own[:1], run, study, baselines, out)
    facts = _facts(run, study, plan, prepared_s, chosen["seconds"].sum())
    page = study_page(
        run,
        study,
        settings,
        estimator,
        choices,
        train_set=train_set,
        facts=facts,
        manifest=manifest,
        detector=detector,
        troubles=troubles,
    )
    write_study_page(page, settings.page)
    files = {"Report": settings.page, "All numbers": out / _NUMBERS[0]}
    files |= {"Every cell": out / _NUMBERS[2]}
    if detector is not None:
        files["Chosen detector"] = detector
    state: dict[str, object] = {
        "fingerprint": fingerprint,
        "logged": False,
        "facts": dict(facts),
        "files": [path.relative_to(out).as_posix() for path in files.values()],
    }
    _note(out, state)
    print_study(page, files)
    if logger is not None and _log(logger, page, results.table, out):
        _note(out, state | {"logged": True})


def report_fingerprint(run: CellRun, study: Study, settings: Settings) -> str:
    """Identify what a report is made from: finished cells, failures, rows, metrics, settings.

    Intervals and caveats rest on the rows' groups and generators, which decide no cell's scores.
    """
    facts: list[Plain] = [
        _PAGE_VERSION,
        [[str(cell), cell.grid, key] for cell, key in run.keys.items()],
        [*sorted(str(outcome) for outcome in run.failures)],
        [[str(seed), _digest(frame)] for seed, frame in study.frames.items()],
        [[each.name, [*each.seen], [*each.generators]] for each in study.training_sets.values()],
        list(study.features),
        settings.title,
        settings.metric,
        [*METRICS],
        [*study.matched],
        settings.replicates,
        [str(claim) for claim in settings.claims],
    ]
    return fingerprint_of(facts)


def _digest(frame: pd.DataFrame) -> str:
    columns = ["group", "generator", *(name for name in PROVENANCE if name in frame)]
    hashed = pd.util.hash_pandas_object(frame[columns], index=False)
    return sha256(hashed.to_numpy().tobytes()).hexdigest()


def _is_published(out: Path, fingerprint: str, *, logged: bool) -> bool:
    try:
        state = json.loads((out / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(state, dict) or state.get("fingerprint") != fingerprint:
        return False
    there = all((out / name).exists() for name in [*state.get("files", []), *_NUMBERS])
    return there and (not logged or bool(state.get("logged")))


def _note(out: Path, state: dict[str, object]) -> None:
    """Note what the report is of, and which files belong to it."""
    with writing(out / _STATE) as partial:
        partial.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def _write_tables(table: pd.DataFrame, chosen: pd.DataFrame, out: Path) -> None:
    numbers, parquet, cells = (out / name for name in _NUMBERS)
    with writing(numbers) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")
    with writing(parquet) as partial:
        table.to_parquet(partial, index=False)
    with writing(cells) as partial:
        chosen.to_csv(partial, index=False)


def _detector(
    chosen: Sequence[Cell], run: CellRun, study: Study, baselines: Baselines, out: Path
) -> tuple[Path | None, list[str]]:
    """Store the chosen detector; what goes wrong must not cost the report."""
    for cell in chosen:
        try:
            return take_home(cell, run.keys[cell], study, baselines, out=out), []
        except (DflError, OSError) as err:
            log.warning("the chosen detector could not be stored: %s", err)
            return None, [f"The chosen detector could not be stored: {cause_of(err)}."]
    return None, []


def _facts(
    run: CellRun, study: Study, plan: StudyPlan, prepared_s: float, cells_s: float
) -> list[tuple[str, str]]:
    failed = f", and {len(run.failures)} that failed" if run.failures else ""
    return [
        ("images", str(plan.images)),
        ("cells", f"{len(run.keys)}{failed}"),
        ("cells fitted in this run", str(run.fitted)),
        ("forward passes", str(plan.passes)),
        ("made in this run", str(plan.passes - plan.passes_done)),
        ("saved by the store", str(plan.passes_saved)),
        ("seeds", ", ".join(str(seed) for seed in study.frames)),
        ("time of planning and features in this run", duration(prepared_s)),
        ("time of the cells in this run", duration(run.seconds)),
        ("time of all cells, one after the other", duration(cells_s)),
        ("processes", str(plan.processes)),
        ("versions", ", ".join(f"{name} {version(name)}" for name in _PACKAGES)),
    ]


def _log(logger: WandbLogger, page: StudyPage, table: pd.DataFrame, out: Path) -> bool:
    """Send the results to W&B; whatever it throws must not cost them."""
    try:
        log_study(logger, page, table, [out / name for name in _NUMBERS])
    except Exception as err:
        log.warning(
            "W&B: the study could not be logged (%s); it is there, and the same command tries "
            "again",
            cause_of(err),
        )
        return False
    return True
