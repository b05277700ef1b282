"""Results tables for the terminal: percent with one decimal, 80 columns, plain text when piped."""

import math
from collections.abc import Hashable, Mapping
from typing import Final

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dfl.evaluation import METRICS, TABLE_METRICS

__all__ = ["comparison_view", "metric_view", "print_comparison", "print_metrics"]

_NAME_WIDTH: Final = 80 - 8 * len(("Real", "Fake", *TABLE_METRICS))  # the rest is for numbers
_TITLES: Final = {"dataset": "Dataset", "generator": "Generator"}
_SINGLE_CLASS: Final = "n/a: the images are of one class only, and this metric needs both."
_PASSED_OVER: Final = "Mean and worst pass over n/a."


def metric_view(table: pd.DataFrame, *, title: str = "Results") -> RenderableType:
    """Lay out a results table: datasets and what sums them up, then generators.

    Args:
        table: What ``dfl.evaluation.metric_table`` returns.
        title: The line above it.

    Returns:
        Something a rich console prints; within 80 columns for names up to some 30 characters,
        longer names are folded.
    """
    datasets = table[table["scope"] == "dataset"]
    # With a single dataset its row says it all.
    summary = (
        table[table["scope"].isin(["pooled", "macro", "worst"])] if len(datasets) > 1 else None
    )
    parts: list[RenderableType] = [Text(title, style="bold")]
    if datasets.empty:
        return Group(*parts, _note("No image here has a label, so there is nothing to measure."))
    # One width for both sections, so that their columns stand below each other.
    width = min(_NAME_WIDTH, table["name"].str.len().max())
    parts += [Text(), _section("dataset", datasets, summary, width)]
    generators = table[table["scope"] == "generator"]
    if not generators.empty:
        parts += [Text(), _section("generator", generators, None, width)]
    return Group(*parts, Text(), *_notes(table))


def comparison_view(
    tables: Mapping[str, pd.DataFrame], *, title: str = "Comparison"
) -> RenderableType:
    """Lay out several results tables against each other, one row a head.

    Args:
        tables: Results tables by the name of their source.
        title: The line above it.

    Returns:
        Something a rich console prints: the metrics over all images, and, where a source has more
        than one dataset, the mean and the worst accuracy over datasets. The best of each column is
        bold where the output can show it.
    """
    columns = [("pooled", metric, METRICS[metric].heading) for metric in TABLE_METRICS]
    if any((table["scope"] == "dataset").sum() > 1 for table in tables.values()):
        columns += [("macro", "accuracy", "Mean Acc"), ("worst", "accuracy", "Worst Acc")]
    values = [
        [_cell(table, scope, metric) for scope, metric, _ in columns] for table in tables.values()
    ]
    best = [
        _best([row[index] for row in values], lowest=METRICS[metric].lower_is_better)
        for index, (_, metric, _) in enumerate(columns)
    ]
    width = min(_NAME_WIDTH - 8, max(map(len, [*tables, "Scores"])))
    grid = _grid("Scores", [heading for _, _, heading in columns], width)
    for name, row in zip(tables, values, strict=True):
        grid.add_row(
            Text(name),
            *(_percent(value, value == top) for value, top in zip(row, best, strict=True)),
        )
    notes = [_note(_SINGLE_CLASS)] if any(math.isnan(v) for row in values for v in row) else []
    return Group(Text(title, style="bold"), Text(), grid, *([Text(), *notes] if notes else []))


def print_metrics(
    table: pd.DataFrame, *, title: str = "Results", console: Console | None = None
) -> None:
    """Print a results table, to the standard output unless a console is given."""
    (console or Console(highlight=False)).print(metric_view(table, title=title))


def print_comparison(
    tables: Mapping[str, pd.DataFrame], *, title: str = "Comparison", console: Console | None = None
) -> None:
    """Print several results tables against each other, like ``print_metrics``."""
    (console or Console(highlight=False)).print(comparison_view(tables, title=title))


def _section(scope: str, rows: pd.DataFrame, summary: pd.DataFrame | None, width: int) -> Table:
    grid = _grid(
        _TITLES[scope], ["Real", "Fake", *(METRICS[name].heading for name in TABLE_METRICS)], width
    )
    for row in rows.to_dict("records"):
        _add(grid, row, counts=True)
    if summary is not None:
        grid.add_section()
        for row in summary.to_dict("records"):
            _add(grid, row, counts=row["scope"] == "pooled")
    return grid


def _grid(first: str, others: list[str], width: int) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column(first, overflow="fold", width=width)
    for heading in others:
        grid.add_column(heading, justify="right", no_wrap=True)
    return grid


def _add(grid: Table, row: Mapping[Hashable, object], *, counts: bool) -> None:
    numbers = [f"{row[name]}" if counts else "" for name in ("n_real", "n_fake")]
    grid.add_row(
        Text(str(row["name"])), *numbers, *(_percent(float(str(row[m]))) for m in TABLE_METRICS)
    )


def _percent(value: float, best: bool = False) -> Text:
    return Text("n/a" if math.isnan(value) else f"{100 * value:.1f}", style="bold" if best else "")


def _cell(table: pd.DataFrame, scope: str, metric: str) -> float:
    return float(table.loc[table["scope"] == scope, metric].iloc[0])


def _best(values: list[float], *, lowest: bool) -> float:
    there = [value for value in values if not math.isnan(value)]
    if len(values) < 2 or not there:
        return math.nan
    return min(there) if lowest else max(there)


def _notes(table: pd.DataFrame) -> list[Text]:
    errors = [METRICS[name].heading for name in TABLE_METRICS if METRICS[name].lower_is_better]
    notes = [
        _note(
            f"Percent; of {' and '.join(errors)} lower is better. "
            f"A score above {table.attrs.get('threshold', 0.0):g} counts as fake."
        )
    ]
    missing = table[[*TABLE_METRICS]].isna().any(axis=None)
    if missing:
        several = (table["scope"] == "dataset").sum() > 1
        notes.append(_note(f"{_SINGLE_CLASS} {_PASSED_OVER}" if several else _SINGLE_CLASS))
    n_unknown = table.attrs.get("n_unknown", 0)
    if n_unknown:
        notes.append(_note(f"Rows of unknown label, left out: {n_unknown}."))
    return notes


def _note(sentence: str) -> Text:
    return Text(sentence, style="dim")
