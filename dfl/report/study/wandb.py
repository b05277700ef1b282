"""A finished study in a Weights & Biases run: tables, the numbers of the best, the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pandas as pd
import yaml
from lightning.pytorch.loggers import WandbLogger

from dfl.report.study.content import StudyPage
from dfl.report.study.page import study_html
from dfl.report.study.page.wording import cell_text, number

if TYPE_CHECKING:
    import wandb

    _Content = dict[str, wandb.Table | wandb.Html]

_MOST_ROWS: Final = 10_000
_SUMMARIES: Final = ("macro", "worst", "seen", "unseen", "pooled")


def log_study(
    logger: WandbLogger, page: StudyPage, results: pd.DataFrame, files: Sequence[Path] = ()
) -> None:
    """Put a study into the run of a logger, which may be offline; keys begin with ``study/``.

    Logged are the tables ``results`` (of the test images: means and worst over test sets, and as
    many rows as W&B shows; all numbers are in the files), ``choices``, ``unseen``, ``leaders``,
    ``models``, ``effects``, ``claims``, ``comparisons``, ``metrics`` and ``failures``, and the
    page; the summary holds the numbers of the best configuration, and the config what the study was
    made from. What is empty is left out.

    Args:
        logger: Whose run; it is not finished here.
        page: What the study says.
        results: The tidy table of all cells.
        files: Kept with the run as an artifact ``study-...``.
    """
    import wandb

    run = logger.experiment
    content: _Content = {
        f"study/{name}": wandb.Table(dataframe=_object(table))
        for name, table in _tables(page, results)
        if not table.empty
    }
    content["study/page"] = wandb.Html(study_html(page), inject=False)
    run.log(content)
    if files:
        artifact = wandb.Artifact(f"study-{run.id}", type="study")
        for file in files:
            artifact.add_file(str(file))
        run.log_artifact(artifact)
    run.summary.update({f"study/{key}": value for key, value in _summary(page).items()})
    run.config.update({"study": _config(page.config)}, allow_val_change=True)


def _tables(page: StudyPage, results: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [
        ("results", _shown(results)),
        ("choices", page.choices),
        ("unseen", page.unseen),
        ("leaders", page.leaders),
        ("models", page.models),
        ("effects", page.effects),
        ("claims", page.claims),
        ("comparisons", page.comparisons),
        ("metrics", page.metrics),
        ("failures", page.failures),
    ]


def _shown(results: pd.DataFrame) -> pd.DataFrame:
    """Choose the rows that a person would look through; W&B cuts off what is too long unasked."""
    if results.empty:
        return results
    wanted = (results["split"] == "test") & results["scope"].isin(_SUMMARIES)
    return results[wanted].head(_MOST_ROWS)


def _object(table: pd.DataFrame) -> pd.DataFrame:
    """Hold texts as plain objects, which W&B tells apart from numbers."""
    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    plain = table.reset_index(drop=True).astype(dict.fromkeys(texts, object))
    # A column of texts may have nothing in a row; nan there would make it a column of numbers.
    return plain.assign(**{name: plain[name].where(plain[name].notna(), None) for name in texts})


def _summary(page: StudyPage) -> dict[str, float | int | str]:
    summary: dict[str, float | int | str] = {
        "metric": page.metric,
        "failed_cells": len(page.failures),
    }
    if not page.claims.empty:
        verdicts = page.claims["verdict"].value_counts()
        summary |= {f"claims/{name}": int(n) for name, n in verdicts.items()}
    if page.choices.empty:
        return summary
    best = page.choices.iloc[0]
    for key in ("test", "low", "high", "val"):
        if (value := number(best[key])) is not None:
            summary[f"best/{key}"] = value
    names = ("features", "reduction", "head", "train_set", "train_condition")
    return summary | {f"best/{name}": cell_text(best[name]) for name in names}


def _config(text: str) -> object:
    """The study's settings as W&B can filter by them; as text if they are no YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
