"""A finished study in the terminal: the best, one matrix, what failed, and where the page is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dfl.evaluation import METRICS
from dfl.report.study.content import UNMATCHED, StudyPage
from dfl.report.study.page.tables import failures, tally, unseen
from dfl.report.study.page.wording import bare, cell_text, interval, percent

_LINE: Final = 80
_COLUMN: Final = 12  # of a longer name the rest is folded
_NARROWEST: Final = 5
_BETWEEN: Final = 3  # two columns
_LABEL_WIDTH: Final = 32
_MOST_CAUSES: Final = 10
_MOST_CELLS: Final = 3  # named of those that failed of one cause
_ASCII: Final = str.maketrans({"\u2013": "-", "\u2212": "-", "\u00a0": " "})


def print_study(
    page: StudyPage, files: Mapping[str, Path] | None = None, *, console: Console | None = None
) -> None:
    """Print the best of a study, its first matrix, its claims and failures; the page has all.

    It takes 80 columns; long names are folded, and a matrix of many test sets is printed in blocks
    below each other.

    Args:
        page: What to show; empty tables are left out.
        files: What lies where, such as ``{"Page": Path("report.html")}``; listed at the end.
        console: Where to print; the standard output by default.
    """
    metric = METRICS[page.metric]
    parts: list[RenderableType] = [Text(page.title, style="bold"), Text()]
    parts += _choices(page.choices, metric.title)
    parts += _unseen(page.unseen, metric.title)
    for name, table in list(page.matrices.items())[:1]:
        parts += _matrix(name, table)
    if verdicts := tally(page.claims):
        said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts)
        parts += [Text(f"Claims: {said}."), Text()]
    parts += _failures(page.failures)
    better = "lower is better" if metric.lower_is_better else "higher is better"
    parts.append(_note(f"{metric.title} in percent, {better}; 95 % intervals. {metric.meaning}"))
    if files:
        parts += [Text(), _pairs((name, str(path)) for name, path in files.items())]
    (console or Console(highlight=False)).print(Group(*parts))


def _choices(choices: pd.DataFrame, metric: str) -> list[RenderableType]:
    if choices.empty:
        return [Text("No configuration could be chosen."), Text()]
    parts: list[RenderableType] = []
    for index, row in enumerate(choices.to_dict("records")):
        parts.append(Text(cell_text(row["criterion"]), style="bold" if index == 0 else ""))
        said = [cell_text(row[name]) for name in ("features", "reduction", "head")]
        trained = f"{cell_text(row['train_set'])}, condition {cell_text(row['train_condition'])}"
        ends = interval(row["low"], row["high"])
        test = f"{percent(row['test'])}  ({ends})" if ends else percent(row["test"])
        lines = [
            ("Configuration", " / ".join(said)),
            ("Trained on", trained),
            (metric, f"{test}, on validation {percent(row['val'])}".translate(_ASCII)),
        ]
        if cell_text(row["why"]) != "none":
            lines.append(("Why", cell_text(row["why"])))
        parts += [_pairs(lines), Text()]
    return parts


def _unseen(table: pd.DataFrame, metric: str) -> list[RenderableType]:
    """Say how the chosen configuration fares where generators and photographs are new."""
    parts: list[RenderableType] = []
    for row in unseen(table[table["chosen"]] if len(table) else table):
        ends = f"  ({row.interval})" if row.interval else ""
        lines = [
            (f"{metric}, mean of matched datasets", f"{row.value}{ends}"),
            ("Its worst dataset", row.worst),
            ("False positives, worst new source", row.fpr),
            ("Fakes caught at that threshold", row.tpr),
        ]
        if row.family != "n/a":
            lines.append(("New families, unmatched", f"{row.family}; {UNMATCHED}"))
        lines = [(label, text.translate(_ASCII)) for label, text in lines]
        parts += [Text("New generators, new photographs", style="bold"), _pairs(lines), Text()]
    return parts


def _matrix(name: str, table: pd.DataFrame) -> list[RenderableType]:
    if table.empty:
        return []
    down, across = (list(dict.fromkeys(table[side])) for side in ("train_set", "test_set"))
    found = table.set_index(["train_set", "test_set"])["value"].to_dict()
    parts: list[RenderableType] = [Text(f"{name}: training set by test set", style="bold"), Text()]
    width = min(20, max(10, *(len(cell_text(name)) for name in down)))
    for block in _blocks(across, _LINE - width):
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        grid.add_column("Trained on", overflow="fold", width=width)
        for test in block:
            heading = cell_text(test)
            least = min(_COLUMN, max(_NARROWEST, len(heading)))
            grid.add_column(Text(heading, overflow="fold"), justify="right", min_width=least)
        for train in down:
            values = (
                Text(bare(percent(found.get((train, test)))), style="bold" * (train == test))
                for test in block
            )
            grid.add_row(Text(cell_text(train)), *values)
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


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", overflow="fold", max_width=_LABEL_WIDTH)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(Text(label), Text(value))
    return grid


def _note(sentence: str) -> Text:
    return Text(sentence, style="dim")
