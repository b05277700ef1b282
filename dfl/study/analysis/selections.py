"""Which rows of the results table are compared with which."""

from collections.abc import Sequence

import pandas as pd

from dfl.study.analysis.estimates import Estimate, balanced
from dfl.study.analysis.judge import AXES, cell_axes
from dfl.study.design.grid import Cell

__all__ = [
    "CONFIGURATION",
    "as_images_come",
    "company",
    "configuration_of",
    "is_configuration",
    "tested",
    "value_columns",
]

CONFIGURATION = ("grid", "features", "reduction", "head", "train_condition")
"""What a person can choose; training and test set, and the seed, are what it is tried on."""


def configuration_of(cell: Cell) -> tuple[object, ...]:
    """Give what a person can choose of a cell, as `CONFIGURATION` orders it."""
    axes = cell_axes(cell)
    return tuple(axes[name] for name in CONFIGURATION)


def tested(table: pd.DataFrame, scope: str) -> pd.DataFrame:
    """Keep the first grid's test rows of a scope; name training and test condition as one axis."""
    rows = table[(table["scope"] == scope) & (table["split"] == "test")]
    rows = rows[rows["grid"] == table["grid"].iloc[0]]  # others are no full crossing with it
    same = rows["train_condition"] == rows["test_condition"]
    both = rows["train_condition"] + " → " + rows["test_condition"]
    named: pd.DataFrame = rows.assign(condition=rows["train_condition"].where(same, both))
    return named


def company(table: pd.DataFrame, axis: str) -> pd.DataFrame | None:
    """Keep what can be compared along an axis; None if there are not two levels of it."""
    others = [
        name for name in AXES if name not in (axis, "train_condition", "test_condition", "grid")
    ]
    if axis != "condition":
        others.append("condition")
    kept = balanced(table, axis, others)
    return kept if kept[axis].nunique() > 1 else None


def as_images_come(table: pd.DataFrame, first_condition: str) -> pd.DataFrame:
    """Keep what was tested on images as they come, where anything was."""
    plain = table["test_condition"] == first_condition
    return table.loc[plain] if plain.any() else table


def is_configuration(table: pd.DataFrame, configuration: Sequence[object]) -> "pd.Series[bool]":
    """Tell which rows are of a configuration."""
    chosen = pd.Series(data=True, index=table.index)
    for name, value in zip(CONFIGURATION, configuration, strict=True):
        chosen &= table[name] == value
    return chosen


def value_columns(estimate: Estimate) -> dict[str, object]:
    """Give a mean and its interval as columns."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
