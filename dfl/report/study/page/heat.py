"""Heat maps as tables: the number stands in each cell, the colour only helps to find it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from dfl.evaluation import METRICS
from dfl.report.study.page.scale import axis_over
from dfl.report.study.page.wording import bare, cell_text, interval, number, percent

N_SHADES: Final = 11
"""Steps of the colour scale, in the style sheet ``s0`` to ``s10``."""

_SUMMARIES: Final = ("pooled", "macro", "worst")


@dataclass(frozen=True)
class HeatCell:
    """A cell: its numbers in words, its shade, and how it stands out.

    Attributes:
        value: The number, without the percent sign.
        interval: Its interval; empty without one.
        shade: Step of the colour scale; None where there is no number.
        own: It gets a frame: training set and test set are the same, or validation chose it.
        first_summary: It is the first that sums up others, and gets a line before it.
    """

    value: str
    interval: str
    shade: int | None
    own: bool = False
    first_summary: bool = False


@dataclass(frozen=True)
class HeatMap:
    """Columns, rows by name, and the values at the ends of the colour scale."""

    columns: list[str]
    rows: dict[str, list[HeatCell]]
    first: str
    last: str


def cross_maps(matrices: dict[str, pd.DataFrame], metric: str) -> dict[str, HeatMap]:
    """Training sets (rows) against test sets (columns), by name, all on one colour scale."""
    there = {name: table for name, table in matrices.items() if not table.empty}
    ends = _ends([number(v) for table in there.values() for v in table["value"]], metric)
    return {name: _heat_map(table, "train_set", "test_set", ends) for name, table in there.items()}


def model_map(models: pd.DataFrame, metric: str) -> HeatMap:
    """Features (rows) against heads (columns), best first; the chosen ones are ``own``.

    Rows have the order of their chosen heads, columns that of their means.
    """
    sides = ["features", "head"]
    named = models.assign(**{name: models[name].map(cell_text) for name in sides})
    lower = METRICS[metric].lower_is_better
    picked = named[named["chosen"].astype(bool)].set_index("features")["value"]
    means = named.groupby("head", sort=False)["value"].mean()
    order = [each.sort_values(ascending=lower, kind="stable").index for each in (picked, means)]
    ranked = named.set_index(sides).reindex(pd.MultiIndex.from_product(order))
    table = ranked.rename_axis(sides).reset_index()
    ends = _ends([number(value) for value in table["value"]], metric)
    return _heat_map(table, "features", "head", ends)


def _heat_map(table: pd.DataFrame, down: str, across: str, ends: tuple[float, float]) -> HeatMap:
    names = [[cell_text(name) for name in table[side]] for side in (down, across)]
    columns, rows = (list(dict.fromkeys(side)) for side in reversed(names))
    found = dict(zip(zip(*names, strict=True), table.to_dict("records"), strict=True))
    first_summary = next((name for name in columns if name in _SUMMARIES), None)
    grid: dict[str, list[HeatCell]] = {row: [] for row in rows}
    for row in rows:
        for column in columns:
            cell = found.get((row, column), {})
            value = number(cell.get("value"))
            grid[row].append(
                HeatCell(
                    "\u2013" if value is None else bare(percent(value)),
                    bare(interval(cell.get("low"), cell.get("high"))),
                    _shade(value, ends),
                    own=row == column or cell.get("chosen") is True,
                    first_summary=column == first_summary,
                )
            )
    return HeatMap(columns, grid, percent(ends[0]), percent(ends[1]))


def _ends(values: Sequence[float | None], metric: str) -> tuple[float, float]:
    axis = axis_over(values)
    worst_first = (axis.low, axis.high)
    return (axis.high, axis.low) if METRICS[metric].lower_is_better else worst_first


def _shade(value: float | None, ends: tuple[float, float]) -> int | None:
    if value is None:
        return None
    part = (value - ends[0]) / (ends[1] - ends[0])
    return min(max(round(part * (N_SHADES - 1)), 0), N_SHADES - 1)
