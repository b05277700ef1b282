"""The page's tables: choices, claims, paired comparisons, all metrics, and failures."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

import pandas as pd

from dfl.evaluation import METRICS
from dfl.report.study.page.dots import Dot, dot_on
from dfl.report.study.page.scale import axis_over
from dfl.report.study.page.wording import (
    bare,
    cell_text,
    count,
    interval,
    number,
    p_value,
    percent,
    points,
    points_interval,
    spans_zero,
)

_VERDICTS: Final = ("held", "did not hold", "undecided", "not tested")
_SYMBOLS: Final = {"held": "\u2713", "did not hold": "\u2717", "undecided": "?"}
_PARTS: Final = {
    "features": "Features",
    "reduction": "Reduction",
    "head": "Head",
    "train_set": "Trained on",
    "train_condition": "Training condition",
}

_TEST_SETS: Final = {
    "macro": "mean over the datasets",
    "pooled": "all images together",
    "worst": "on its worst dataset",
}
_LEVEL: Final = 0.05  # of a test, as the intervals hold 95 %

_Row = Mapping[Hashable, object]


@dataclass(frozen=True)
class ChoiceCard:
    """The best configuration by one criterion, in words; ``parts`` are label and value."""

    criterion: str
    name: str
    parts: list[tuple[str, str]]
    test: str
    interval: str
    val: str
    why: str


@dataclass(frozen=True)
class Unseen:
    """A configuration where generators and photographs are new, in words."""

    name: str
    chosen: bool
    value: str
    interval: str
    worst: str
    fpr: str
    tpr: str
    family: str
    val: str


@dataclass(frozen=True)
class CheckedClaim:
    """A claim, its verdict, and the difference that decides it; ``dot`` has 0 at 50 %."""

    text: str
    verdict: str
    symbol: str
    kind: str
    evidence: str
    dot: Dot | None
    difference: str
    interval: str


@dataclass(frozen=True)
class Comparison:
    """The best configuration (A) against another one (B), in words; ``dot`` has 0 at 50 %."""

    b: str
    dot: Dot
    difference: str
    interval: str
    p: str
    p_holm: str
    mcnemar_p: str
    finding: str


@dataclass(frozen=True)
class Failure:
    """Cells that failed of one cause."""

    cause: str
    count: int
    cells: list[str]


@dataclass(frozen=True)
class MetricRow:
    """A configuration on a test set: value and interval in percent for each metric."""

    test_set: str
    counts: tuple[str, str]
    numbers: list[tuple[str, str]]


def choices(table: pd.DataFrame) -> list[ChoiceCard]:
    """The best configurations, the first one being the headline."""
    return [
        ChoiceCard(
            cell_text(row["criterion"]),
            " \u00b7 ".join(
                cell_text(row[name])
                for name in ("features", "reduction", "head")
                if cell_text(row[name]) != "none"
            ),
            [(label, cell_text(row[name])) for name, label in _PARTS.items()],
            percent(row["test"]),
            interval(row["low"], row["high"]),
            percent(row["val"]),
            "" if cell_text(row["why"]) == "none" else cell_text(row["why"]),
        )
        for row in table.to_dict("records")
    ]


def unseen(table: pd.DataFrame) -> list[Unseen]:
    """Configurations where generators and photographs are new, in their order."""
    return [
        Unseen(
            " \u00b7 ".join(
                cell_text(row[name])
                for name in ("features", "reduction", "head", "train_condition")
                if cell_text(row[name]) != "none"
            ),
            bool(row["chosen"]),
            percent(row["value"]),
            interval(row["low"], row["high"]),
            f"{percent(row['worst'])} on {cell_text(row['worst_set'])}",
            f"{percent(row['fpr'])} on {cell_text(row['fpr_source'])}"
            if number(row["fpr"]) is not None
            else "n/a",
            percent(row["tpr"]),
            percent(row["family"]),
            percent(row["val"]),
        )
        for row in table.to_dict("records")
    ]


def claims(table: pd.DataFrame) -> list[CheckedClaim]:
    """Claims in the order in which they are given, their differences on one scale."""
    rows = table.to_dict("records")
    dots = _difference_dots(rows)
    return [
        CheckedClaim(
            cell_text(row["statement"]),
            verdict := cell_text(row["verdict"]),
            _SYMBOLS.get(verdict, "\u2013"),
            verdict.replace(" ", "-") if verdict in _SYMBOLS else "not-tested",
            "" if cell_text(row["evidence"]) == "none" else cell_text(row["evidence"]),
            None if dot.at is None else dot,
            points(row["difference"]),
            points_interval(row["low"], row["high"]),
        )
        for row, dot in zip(rows, dots, strict=True)
    ]


def tally(table: pd.DataFrame) -> list[tuple[str, int]]:
    """Say of how many claims each verdict is, leaving out those of none."""
    verdicts = [] if table.empty else table["verdict"].tolist()
    return [(each, verdicts.count(each)) for each in _VERDICTS if each in verdicts]


def comparisons(table: pd.DataFrame, metric: str) -> dict[str, list[Comparison]]:
    """Paired comparisons by what stands on one side, which is in words; one scale for all."""
    rows = table.to_dict("records")
    groups: dict[str, list[Comparison]] = {}
    for row, dot in zip(rows, _difference_dots(rows), strict=True):
        test_set = cell_text(row["test_set"])
        where = _TEST_SETS.get(test_set, f"on {test_set}")
        groups.setdefault(f"{cell_text(row['a'])}, {where}", []).append(
            Comparison(
                cell_text(row["b"]),
                dot,
                points(row["difference"]),
                points_interval(row["low"], row["high"]),
                p_value(row["p"]),
                p_value(row["p_holm"]),
                p_value(row["mcnemar_p"]),
                _finding(row, metric),
            )
        )
    return groups


def failures(table: pd.DataFrame) -> list[Failure]:
    """Cells that failed by what they failed of, the most frequent first."""
    if table.empty:
        return []
    causes = table["cause"].map(cell_text)
    cells = table["cell"].map(cell_text)
    return [
        Failure(str(cause), int(many), cells[causes == cause].tolist())
        for cause, many in causes.value_counts().items()
    ]


def metric_rows(table: pd.DataFrame) -> dict[str, list[MetricRow]]:
    """All numbers, by configuration."""
    groups: dict[str, list[MetricRow]] = {}
    for row in table.to_dict("records"):
        counts = count(row["n_real"]), count(row["n_fake"])
        numbers = [
            (
                bare(percent(row.get(name))),
                bare(interval(row.get(f"{name}_low"), row.get(f"{name}_high"))),
            )
            for name in METRICS
        ]
        groups.setdefault(cell_text(row["configuration"]), []).append(
            MetricRow(cell_text(row["test_set"]), counts, numbers)
        )
    return groups


def _difference_dots(rows: list[dict[Hashable, object]]) -> list[Dot]:
    """Place differences on an axis that reaches equally far on both sides of 0."""
    ends = [number(row[key]) for row in rows for key in ("difference", "low", "high")]
    reach = max((abs(end) for end in ends if end is not None), default=0.0)
    axis = axis_over([-reach, reach], lowest=-1.0)
    return [dot_on(axis, row, "difference") for row in rows]


def _finding(row: _Row, metric: str) -> str:
    difference = number(row["difference"])
    if difference is None or number(row["low"]) is None or number(row["high"]) is None:
        return "cannot be told"
    if spans_zero(row["low"], row["high"]):
        return "no clear difference"
    better = "A is better" if (difference > 0) != METRICS[metric].lower_is_better else "B is better"
    corrected = number(row["p_holm"])
    if corrected is not None and corrected > _LEVEL:
        return f"{better}, but not clearly after correction"
    return better
