"""Dot plots as rows: a name, a dot with its interval on a common axis, and the number."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from dfl.evaluation import METRICS
from dfl.report.study.page.scale import Axis, axis_over
from dfl.report.study.page.wording import (
    cell_text,
    count,
    interval,
    number,
    percent,
    points,
    points_interval,
    spans_zero,
)

_Row = Mapping[Hashable, object]


@dataclass(frozen=True)
class Dot:
    """A dot and its interval, in percent of the axis; None where there is no number."""

    at: float | None
    start: float | None = None
    width: float | None = None


@dataclass(frozen=True)
class DotRow:
    """A row of a dot plot.

    Attributes:
        name: What the row is.
        dot: Where the dot and the interval are.
        value: The number, in words.
        interval: Its interval, in words.
        detail: A second, lighter line below the name.
        tag: A word in a frame beside it.
        others: Lighter dots of the same row: position, and what it is.
        behind: The difference to the best row, in words.
        behind_interval: Its interval, and what it means if it spans 0.
    """

    name: str
    dot: Dot
    value: str
    interval: str
    detail: str = ""
    tag: str = ""
    others: list[tuple[float, str]] = field(default_factory=list)
    behind: str = ""
    behind_interval: str = ""


@dataclass(frozen=True)
class DotPlot:
    """Rows on one axis; ``chance`` is where guessing lies, in percent of the axis."""

    axis: Axis
    rows: list[DotRow]
    chance: float | None = None


def dot_on(axis: Axis, row: _Row, key: str = "value") -> Dot:
    """Place a value and its interval (columns ``low`` and ``high``) on an axis."""
    start, end = axis.place(number(row["low"])), axis.place(number(row["high"]))
    width = None if start is None or end is None else round(end - start, 2)
    return Dot(axis.place(number(row[key])), start, width)


def model_plot(
    models: pd.DataFrame, metric: str, kinds: Mapping[tuple[str, str], str] | None = None
) -> DotPlot:
    """A row for each features: the head that validation chose, the others as lighter dots.

    Args:
        models: features, head, value, low, high, chosen.
        metric: The primary metric.
        kinds: What features and head are, where that is not "frozen".

    Returns:
        The features in the order of their chosen heads, best first.
    """
    axis = _axis(models)
    rows = []
    for row in _ranked(models[models["chosen"].astype(bool)], metric).to_dict("records"):
        own = models[(models["features"] == row["features"]) & ~models["chosen"].astype(bool)]
        others = [
            (at, f"{cell_text(other['head'])}: {percent(other['value'])}")
            for other in own.to_dict("records")
            if (at := axis.place(number(other["value"]))) is not None
        ]
        name, head = cell_text(row["features"]), cell_text(row["head"])
        tag = (kinds or {}).get((name, head), "")
        rows.append(_row(axis, row, name, detail=f"with {head}", tag=tag, others=others))
    return DotPlot(axis, rows, _chance(axis, metric))


def effect_plots(effects: pd.DataFrame, metric: str) -> dict[str, DotPlot]:
    """A plot for each axis of the study that has several levels; all share one scale."""
    if effects.empty:
        return {}
    axis = _axis(effects)
    plots = {}
    for name, levels in effects.groupby("axis", sort=False):
        rows = []
        for index, row in enumerate(_ranked(levels, metric).to_dict("records")):
            cells = count(row["n_cells"])
            detail = f"{cells} cell{'' if cells == '1' else 's'}" if cells else ""
            drawn = _row(axis, row, cell_text(row["level"]), detail=detail)
            behind, ends = _behind(row, is_first=index == 0)
            rows.append(replace(drawn, behind=behind, behind_interval=ends))
        plots[str(name)] = DotPlot(axis, rows, _chance(axis, metric))
    return plots


def leader_plot(leaders: pd.DataFrame, metric: str, *, most: int) -> DotPlot:
    """The first configurations, in the order in which they are given."""
    shown = leaders.head(most)
    axis = _axis(shown)
    rows = [
        _row(
            axis,
            row,
            cell_text(row["features"]),
            detail=_recipe(row),
            tag="" if row["kind"] == "frozen" else cell_text(row["kind"]),
        )
        for row in shown.to_dict("records")
    ]
    return DotPlot(axis, rows, _chance(axis, metric))


def _behind(row: _Row, *, is_first: bool) -> tuple[str, str]:
    """The paired difference to the best level and its interval, in words."""
    if number(row["difference"]) is None:
        return ("best" if is_first else "n/a"), ""
    ends = points_interval(row["diff_low"], row["diff_high"])
    if ends and spans_zero(row["diff_low"], row["diff_high"]):
        ends += ": no clear difference"
    return points(row["difference"]), ends


def _recipe(row: _Row) -> str:
    said = [cell_text(row[name]) for name in ("reduction", "head")]
    if said[0] == "none":
        said = said[1:]
    if number(row["val"]) is not None:
        said.append(f"{percent(row['val'])} on validation")
    return " \u00b7 ".join(said)


def _row(
    axis: Axis,
    row: _Row,
    name: str,
    *,
    detail: str,
    tag: str = "",
    others: Iterable[tuple[float, str]] = (),
) -> DotRow:
    said = percent(row["value"]), interval(row["low"], row["high"])
    return DotRow(name, dot_on(axis, row), *said, detail, tag, list(others))


def _ranked(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return frame.sort_values("value", ascending=METRICS[metric].lower_is_better, kind="stable")


def _axis(frame: pd.DataFrame) -> Axis:
    if frame.empty:
        return axis_over([])
    numbers = frame[["value", "low", "high"]].astype(float).to_numpy()
    return axis_over(numbers.ravel().tolist())


def _chance(axis: Axis, metric: str) -> float | None:
    at = METRICS[metric].chance
    return axis.place(at) if at is not None and axis.low <= at <= axis.high else None
