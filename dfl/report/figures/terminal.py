"""Results tables for the terminal: percent with one decimal, 80 columns, plain text when piped."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dfl.evaluation import METRICS, TABLE_METRICS

_HEADINGS: Final = [METRICS[name].heading for name in TABLE_METRICS]
_NAME_WIDTH: Final = 80 - 8 * len(("Real", "Fake", *_HEADINGS))  # the rest is for numbers
_SINGLE_CLASS: Final = "n/a: the images are of one class only, and this metric needs both."
_PASSED_OVER: Final = "Mean and worst pass over n/a."


def print_metrics(
    table: pd.DataFrame, *, title: str = "Results", console: Console | None = None
) -> None:
    """Print a results table: datasets and what sums them up, then generators.

    It takes 80 columns for names up to some 30 characters; longer ones are folded.

    Args:
        table: What ``dfl.evaluation.metric_table`` returns.
        title: The line above it.
        console: Where to print; the standard output by default.
    """
    scopes = dict(list(table.groupby("scope", sort=False)))
    parts: list[RenderableType] = [Text(title, style="bold")]
    if "dataset" in scopes:
        # One width for both sections, so that their columns stand below each other.
        width = min(_NAME_WIDTH, table["name"].str.len().max())
        datasets = _section("Dataset", scopes["dataset"], width)
        if len(scopes["dataset"]) > 1:  # a single one says it all
            datasets.add_section()
            for scope in ("pooled", "macro", "worst"):
                _add(datasets, scopes[scope], counts=scope == "pooled")
        parts += [Text(), datasets]
        if "generator" in scopes:
            parts += [Text(), _section("Generator", scopes["generator"], width)]
        parts += [Text(), *_notes(table)]
    else:
        parts.append(_note("No image here has a label, so there is nothing to measure."))
    (console or Console(highlight=False)).print(Group(*parts))


def print_comparison(
    tables: Mapping[str, pd.DataFrame],
    *,
    first: str = "Scores",
    title: str = "Comparison",
    console: Console | None = None,
) -> None:
    """Print several results tables against each other, one row each.

    Shown are the metrics over all images, and, where a source has more than one dataset, the mean
    and the worst accuracy over datasets. The best of each column is bold where the output can show
    it.

    Args:
        tables: Results tables by the name of their source.
        first: What these names are of, the heading of their column.
        title: The line above it.
        console: Where to print; the standard output by default.
    """
    columns = [("pooled", name, METRICS[name].heading) for name in TABLE_METRICS]
    if any((table["scope"] == "dataset").sum() > 1 for table in tables.values()):
        columns += [("macro", "accuracy", "Mean Acc"), ("worst", "accuracy", "Worst Acc")]
    values = pd.DataFrame(
        {
            heading: [table.loc[table["scope"] == scope, name].iloc[0] for table in tables.values()]
            for scope, name, heading in columns
        }
    )
    signs = [METRICS[name].sign for _, name, _ in columns]
    best = (values * signs) == (values * signs).max()
    width = min(_NAME_WIDTH - 8, max(map(len, [*tables, first])))
    grid = _grid(first, values.columns, width)
    for place, name in enumerate(tables):
        is_best = best.iloc[place] & (len(tables) > 1)
        grid.add_row(Text(name), *map(_percent, values.iloc[place], is_best))
    notes = [Text(), _note(_SINGLE_CLASS)] if values.isna().any(axis=None) else []
    shown = Group(Text(title, style="bold"), Text(), grid, *notes)
    (console or Console(highlight=False)).print(shown)


def _section(first: str, rows: pd.DataFrame, width: int) -> Table:
    grid = _grid(first, ["Real", "Fake", *_HEADINGS], width)
    _add(grid, rows, counts=True)
    return grid


def _grid(first: str, others: Iterable[str], width: int) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column(first, overflow="fold", width=width)
    for heading in others:
        grid.add_column(heading, justify="right", no_wrap=True)
    return grid


def _add(grid: Table, rows: pd.DataFrame, *, counts: bool) -> None:
    for row in rows.to_dict("records"):
        numbers = [str(row[name]) if counts else "" for name in ("n_real", "n_fake")]
        metrics = [_percent(row[name]) for name in TABLE_METRICS]
        grid.add_row(Text(str(row["name"])), *numbers, *metrics)


def _percent(value: float, best: bool = False) -> Text:
    return Text("n/a" if math.isnan(value) else f"{100 * value:.1f}", style="bold" if best else "")


def _notes(table: pd.DataFrame) -> list[Text]:
    errors = [METRICS[name].heading for name in TABLE_METRICS if METRICS[name].lower_is_better]
    notes = [
        f"Percent; of {' and '.join(errors)} lower is better. "
        f"A score above {table.attrs.get('threshold', 0.0):g} counts as fake."
    ]
    if table[[*TABLE_METRICS]].isna().any(axis=None):
        several = (table["scope"] == "dataset").sum() > 1
        notes.append(f"{_SINGLE_CLASS} {_PASSED_OVER}" if several else _SINGLE_CLASS)
    if n_unknown := table.attrs.get("n_unknown", 0):
        notes.append(f"Rows of unknown label, left out: {n_unknown}.")
    return [_note(note) for note in notes]


def _note(sentence: str) -> Text:
    return Text(sentence, style="dim")
