"""How numbers and columns are put in words on the page of a study."""

import math
from typing import Final

import pandas as pd

_DASH: Final = "\u2013"
_MINUS: Final = "\u2212"
_SPACE: Final = "\u00a0"


def percent(value: object) -> str:
    """A share as percent with one decimal; "n/a" where there is none."""
    share = number(value)
    return "n/a" if share is None else f"{100 * share:.1f}{_SPACE}%"


def interval(low: object, high: object) -> str:
    """Both ends of an interval of shares, such as "91.0-95.2 %"; empty where one is missing."""
    ends = _ends(low, high)
    return f"{100 * ends[0]:.1f}{_DASH}{100 * ends[1]:.1f}{_SPACE}%" if ends else ""


def bare(said: str) -> str:
    """A percentage or an interval without its percent sign, where a table's heading has it."""
    return said.removesuffix(f"{_SPACE}%")


def points(value: object) -> str:
    """A difference of shares in percentage points, signed; "n/a" where there is none."""
    difference = number(value)
    return "n/a" if difference is None else f"{_signed(difference)}{_SPACE}points"


def points_interval(low: object, high: object) -> str:
    """Both ends of an interval of differences; empty where one is missing."""
    ends = _ends(low, high)
    return f"{_signed(ends[0])} to {_signed(ends[1])}" if ends else ""


def spans_zero(low: object, high: object) -> bool:
    """Whether an interval of a difference holds 0; so does one that is not known."""
    ends = _ends(low, high)
    return ends is None or ends[0] <= 0 <= ends[1]


def count(value: object) -> str:
    """How many, thousands set apart; empty where it is not known."""
    many = number(value)
    return "" if many is None else f"{many:,.0f}"


def training(train_set: str) -> str:
    """What a training set is, as it stands after "trained on"."""
    return "all datasets together" if train_set == "combined" else train_set


def p_value(value: object) -> str:
    """A p value with three decimals, never an exact zero; "n/a" where there is none."""
    p = number(value)
    if p is None:
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(value: object) -> float | None:
    """The finite number in a table's cell, or None."""
    if not isinstance(value, (int, float)) and not hasattr(value, "__float__"):
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def cell_text(value: object) -> str:
    """A name in a table's cell; what is missing is "none"."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "none"
    return str(value) or "none"


def _ends(low: object, high: object) -> tuple[float, float] | None:
    ends = number(low), number(high)
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])


def _signed(difference: float) -> str:
    size = f"{100 * abs(difference):.1f}"
    if size == "0.0":
        return size
    return ("+" if difference > 0 else _MINUS) + size
