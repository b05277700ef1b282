"""A finished study in the terminal: what a person wants to know before opening the page."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dfl.evaluation import METRICS
from dfl.report.study.page.tables import comparisons, failures
from dfl.report.study.page.wording import (
    cell_text,
    interval,
    number,
    percent,
    points,
    points_interval,
)
from dfl.report.study.summary import StudyPage

__all__ = ["print_study", "study_view"]

_LINE: Final = 80
_COLUMN: Final = 12  # of a longer name the rest is folded
_NARROWEST: Final = 5
_BETWEEN: Final = 3  # two columns
_NAME_WIDTH: Final = 32  # the rest of the 80 columns holds the numbers
_DIFFERENCE_WIDTH: Final = 22  # "-15.0 (-15.6 to -14.4)"
_MOST_LEVELS: Final = 12  # of an axis; the page has them all
_MOST_CAUSES: Final = 10
_MOST_CELLS: Final = 3  # named of those that failed of one cause
_PAIRED: Final = (
    "To the best: paired difference in points to the best level; where its interval holds 0, "
    "there is no clear difference."
)
_ASCII: Final = str.maketrans(
    {"\u2013": "-", "\u2212": "-", "\u00a0": " ", "\u2192": "->", "\u00b7": "/"}
)
_STYLES: Final = {"held": "green", "did not hold": "red", "undecided": "yellow"}


def print_study(
    page: StudyPage, files: Mapping[str, Path] | None = None, *, console: Console | None = None
) -> None:
    """Print a study's result, to the standard output unless a console is given.

    Args:
        page: What to show.
        files: What lies where, such as ``{"Page": Path("report.html")}``; listed at the end.
        console: Where to print.
    """
    (console or Console(highlight=False)).print(study_view(page, files))


def study_view(page: StudyPage, files: Mapping[str, Path] | None = None) -> RenderableType:
    """Lay out a study: the best, matrices, effects, claims, comparisons, failures, files.

    Args:
        page: What to show; empty tables are left out.
        files: What lies where; listed at the end.

    Returns:
        Something a rich console prints, within 80 columns; long names are folded, and a matrix of
        many test sets is printed in blocks below each other.
    """
    metric = METRICS[page.metric]
    parts: list[RenderableType] = [Text(page.title, style="bold"), Text()]
    parts += _choices(page.choices, metric.title)
    for name, table in page.matrices.items():
        parts += _matrix(name, table)
    parts += _effects(page)
    parts += _claims(page.claims)
    parts += _comparisons(page)
    parts += _failures(page.failures)
    parts += [_note(note) for note in dict.fromkeys(page.notes)]
    better = "lower is better" if metric.lower_is_better else "higher is better"
    parts.append(_note(f"{metric.title} in percent, {better}; 95 % intervals."))
    if files:
        parts += [Text(), _pairs((name, str(path)) for name, path in files.items())]
    return Group(*parts)


def _choices(choices: pd.DataFrame, metric: str) -> list[RenderableType]:
    if choices.empty:
        return [Text("No configuration could be chosen."), Text()]
    parts: list[RenderableType] = []
    for index, row in enumerate(choices.to_dict("records")):
        parts.append(Text(cell_text(row["criterion"]), style="bold" if index == 0 else ""))
        said = [cell_text(row[name]) for name in ("features", "reduction", "head")]
        trained = f"{cell_text(row['train_set'])}, condition {cell_text(row['train_condition'])}"
        test = f"{_percent(row['test'])}  ({_ends(row)})" if _ends(row) else _percent(row["test"])
        lines = [
            ("Configuration", " / ".join(said)),
            ("Trained on", trained),
            (metric, f"{test}, on validation {_percent(row['val'])}"),
        ]
        if cell_text(row["why"]) != "none":
            lines.append(("Why", cell_text(row["why"])))
        parts += [_pairs(lines), Text()]
    return parts


def _matrix(name: str, table: pd.DataFrame) -> list[RenderableType]:
    if table.empty:
        return []
    down, across = (list(dict.fromkeys(table[side])) for side in ("train_set", "test_set"))
    found = table.set_index(["train_set", "test_set"])["value"].to_dict()
    parts: list[RenderableType] = [Text(f"{name}: training set by test set", style="bold"), Text()]
    width = _width(down, 20)
    for block in _blocks(across, _LINE - width):
        grid = _grid("Trained on", [cell_text(test) for test in block], width)
        for train in down:
            values = [found.get((train, test)) for test in block]
            grid.add_row(
                Text(cell_text(train)),
                *(
                    Text(_bare(value), style="bold" if train == test else "")
                    for test, value in zip(block, values, strict=True)
                ),
            )
        parts += [grid, Text()]
    return parts


def _blocks(names: Sequence[object], width: int) -> Iterator[list[object]]:
    """Cut columns into blocks that a line holds; a terminal leaves out what it has no room for."""
    block: list[object] = []
    left = width
    for name in names:
        need = min(_COLUMN, max(_NARROWEST, len(cell_text(name)))) + _BETWEEN
        if block and need > left:
            yield block
            block, left = [], width
        block.append(name)
        left -= need
    if block:
        yield block


def _effects(page: StudyPage) -> list[RenderableType]:
    if page.effects.empty:
        return []
    parts: list[RenderableType] = []
    for axis, levels in page.effects.groupby("axis", sort=False):
        if len(levels) < 2:
            continue
        ranked = levels.sort_values(
            "value", ascending=METRICS[page.metric].lower_is_better, kind="stable"
        )
        title = str(axis).replace("_", " ")
        parts += [Text(title[:1].upper() + title[1:], style="bold"), Text()]
        # All axes below each other have their numbers in the same columns.
        grid = _grid("Level", ["Mean", "95 %"], _NAME_WIDTH)
        grid.add_column("To the best", justify="right", min_width=_DIFFERENCE_WIDTH)
        for index, row in enumerate(ranked.head(_MOST_LEVELS).to_dict("records")):
            grid.add_row(
                Text(_ascii(cell_text(row["level"]))),
                _bare(row["value"]),
                _ends(row).removesuffix(" %"),
                _difference(row, "diff_") or ("best" if index == 0 else "n/a"),
            )
        parts += [grid, Text()]
        if len(ranked) > _MOST_LEVELS:
            parts += [_note(f"The first {_MOST_LEVELS} of {len(ranked)}."), Text()]
    if parts:
        parts += [_note(_PAIRED), Text()]
    return parts


def _comparisons(page: StudyPage) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for name, rows in comparisons(page.comparisons, page.metric).items():
        parts += [Text(f"A: {_ascii(name)}", style="bold"), Text()]
        grid = _grid("B", [], _NAME_WIDTH - 9)
        grid.add_column("A minus B", justify="right", min_width=_DIFFERENCE_WIDTH)
        grid.add_column("p, Holm", justify="right")
        grid.add_column("Finding", overflow="fold", width=19)
        for row in rows:
            said = _ascii(row.difference.removesuffix("\u00a0points"))
            ends = _ascii(row.interval)
            grid.add_row(
                Text(_ascii(row.b)), f"{said} ({ends})" if ends else said, row.p_holm, row.finding
            )
        parts += [grid, Text()]
    return parts


def _claims(claims: pd.DataFrame) -> list[RenderableType]:
    if claims.empty:
        return []
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column("Claim", overflow="fold", width=_NAME_WIDTH)
    grid.add_column("Verdict", no_wrap=True)
    grid.add_column("Points", justify="right")
    for row in claims.to_dict("records"):
        verdict = cell_text(row["verdict"])
        grid.add_row(
            Text(cell_text(row["statement"])),
            Text(verdict, style=_STYLES.get(verdict, "")),
            _difference(row),
        )
    return [grid, Text()]


def _failures(table: pd.DataFrame) -> list[RenderableType]:
    groups = failures(table)
    parts: list[RenderableType] = []
    if len(groups) > 1:
        parts.append(Text(f"{len(table):,} cells failed of {len(groups)} causes", style="bold"))
    for each in groups[:_MOST_CAUSES]:
        cells = f"{each.count:,} cell{'s' if each.count != 1 else ''} failed"
        parts.append(Text(f"{cells}: {each.cause}", style="red"))
        first = ", ".join(each.cells[:_MOST_CELLS])
        more = len(each.cells) - _MOST_CELLS
        parts.append(_note(f"{first}, and {more:,} more" if more > 0 else first))
    if len(groups) > _MOST_CAUSES:
        parts.append(_note(f"The first {_MOST_CAUSES} of {len(groups)} causes."))
    return [*parts, Text()] if parts else []


def _difference(row: Mapping[Hashable, object], prefix: str = "") -> str:
    """A difference in points with its interval; empty where there is none."""
    if number(row["difference"]) is None:
        return ""
    said = _ascii(points(row["difference"])).removesuffix(" points")
    ends = _ascii(points_interval(row[f"{prefix}low"], row[f"{prefix}high"]))
    return f"{said} ({ends})" if ends else said


def _grid(first: str, others: Sequence[str], width: int) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column(Text(first), overflow="fold", width=width)
    for heading in others:
        least = min(_COLUMN, max(_NARROWEST, len(heading)))
        grid.add_column(Text(heading, overflow="fold"), justify="right", min_width=least)
    return grid


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", overflow="fold", max_width=_NAME_WIDTH)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(Text(label), Text(value))
    return grid


def _width(names: Iterable[object], most: int) -> int:
    return min(most, max(10, *(len(cell_text(name)) for name in names)))


def _bare(value: object) -> str:
    return _percent(value).removesuffix(" %")


def _percent(value: object) -> str:
    return _ascii(percent(value))


def _ends(row: Mapping[Hashable, object]) -> str:
    return _ascii(interval(row["low"], row["high"]))


def _ascii(said: str) -> str:
    """Say a number so that a pipe of any encoding can take it."""
    return said.translate(_ASCII)


def _note(sentence: str) -> Text:
    return Text(sentence, style="dim")
