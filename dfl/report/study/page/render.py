"""Fill the page's template and write it as one file."""

import base64
import re
from functools import cache
from pathlib import Path
from typing import Final

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dfl.evaluation import METRICS
from dfl.files import writing
from dfl.report.study.content import UNMATCHED, StudyPage
from dfl.report.study.page.curves import MOST_CURVES, roc_panels
from dfl.report.study.page.dots import effect_plots, leader_plot, model_plot
from dfl.report.study.page.heat import N_SHADES, cross_maps, model_map
from dfl.report.study.page.tables import (
    choices,
    claims,
    comparisons,
    failures,
    metric_rows,
    tally,
    unseen,
)
from dfl.report.study.page.wording import cell_text, count, training

_MOST_LEADERS: Final = 25
_MOST_CELLS: Final = 10  # named of those that failed of one cause


def write_study_page(page: StudyPage, file: Path) -> None:
    """Write the page of a study as one HTML file that loads nothing from anywhere.

    Args:
        page: What it shows.
        file: Where it goes; a file already there is replaced at once.
    """
    html = study_html(page)
    with writing(file) as partial:
        partial.write_text(html, encoding="utf-8")


def study_html(page: StudyPage) -> str:
    """The page of a study as HTML, with its style, script and images inside it."""
    metric = METRICS[page.metric]
    effects = effect_plots(page.effects, page.metric)
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            metric=metric.title,
            meaning=metric.meaning,
            lower_is_better=metric.lower_is_better,
            all_metrics=METRICS.values(),
            choices=choices(page.choices),
            unseen=unseen(page.unseen.head(_MOST_LEADERS)),
            unmatched=UNMATCHED,
            claims=claims(page.claims),
            tally=tally(page.claims),
            trained_on=training(page.train_set),
            models=None
            if page.models.empty
            else model_plot(page.models, page.metric, _kinds(page.leaders)),
            model_map=None if page.models.empty else model_map(page.models, page.metric),
            maps=cross_maps(page.matrices, page.metric),
            shades=range(N_SHADES),
            effects={name: plot for name, plot in effects.items() if len(plot.rows) > 1},
            fixed={
                name.partition(",")[0]: plot.rows[0].name
                for name, plot in effects.items()
                if len(plot.rows) == 1
            },
            metrics=metric_rows(page.metrics),
            comparisons=comparisons(page.comparisons, page.metric),
            roc=roc_panels(page.roc),
            most_curves=MOST_CURVES,
            leaders=leader_plot(page.leaders, page.metric, most=_MOST_LEADERS),
            failures=failures(page.failures),
            most_cells=_MOST_CELLS,
            notes=list(dict.fromkeys(page.notes)),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dfl.report.study.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = count
    environment.filters["breakable"] = _breakable
    environment.filters["data_uri"] = _data_uri
    return environment


def _kinds(leaders: pd.DataFrame) -> dict[tuple[str, str], str]:
    """What features and head are, where that is not a head on frozen features."""
    if leaders.empty:
        return {}
    marked = leaders[leaders["kind"] != "frozen"]
    return {
        (cell_text(row["features"]), cell_text(row["head"])): cell_text(row["kind"])
        for row in marked.to_dict("records")
    }


def _breakable(name: str) -> Markup:
    """Let a long name break after the marks that join its words, not within a word."""
    return Markup("").join(
        part if part not in "_+/-." else Markup("{}<wbr>").format(part)
        for part in re.split(r"([_+/.-])", name)
        if part
    )


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
