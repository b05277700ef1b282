"""What the numbers that shape a bottleneck must be, said once for the task and the transformer."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

__all__ = ["out_of_range"]

_COUNT: Final = "a whole number of at least 1"
_WEIGHT: Final = "a number of at least 0"


def out_of_range(counts: Mapping[str, object], weights: Mapping[str, object]) -> str | None:
    """Say which number cannot be used.

    Args:
        counts: By name, what must be whole and at least 1, or a list of such numbers.
        weights: By name, what must be finite and at least 0.

    Returns:
        A sentence that names the first such number, its value and what is allowed; None where all
        can be used.
    """
    for name, value in counts.items():
        if isinstance(value, list | tuple):
            if not all(_is_count(item) for item in value):
                return f"{name} is {value!r}, each of them must be {_COUNT}"
        elif not _is_count(value):
            return f"{name} is {value!r}, must be {_COUNT}"
    for name, value in weights.items():
        if not (isinstance(value, int | float | np.number) and 0 <= float(value) < math.inf):
            return f"{name} is {value!r}, must be {_WEIGHT}"
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1
