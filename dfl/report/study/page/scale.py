"""Axes with round ticks, and where a value lies on them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_MOST: Final = 5  # intervals between ticks; their labels fit a phone's width


@dataclass(frozen=True)
class Axis:
    """A straight axis from ``low`` to ``high`` with a tick at every ``step``."""

    low: float
    high: float
    step: float

    @property
    def n_steps(self) -> int:
        """Intervals between ticks."""
        return round((self.high - self.low) / self.step)

    @property
    def ticks(self) -> list[tuple[float, float]]:
        """Position in percent of the axis, and value, of each tick."""
        n = self.n_steps
        return [(100 * i / n, round(self.low + i * self.step, 6)) for i in range(n + 1)]

    def place(self, value: float | None) -> float | None:
        """Position of a value in percent of the axis, held within it; None stays None."""
        if value is None:
            return None
        part = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(part, 0.0), 1.0), 2)


def axis_over(values: Iterable[float | None], *, lowest: float = 0.0, highest: float = 1.0) -> Axis:
    """An axis with round ends that shows all values.

    Args:
        values: What it must show; None and nan do not count.
        lowest: The axis does not begin below this.
        highest: The axis does not end above this.

    Returns:
        The axis; from ``lowest`` to ``highest`` if there is nothing to show.
    """
    there = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(there), max(there)) if there else (lowest, highest)
    if high - low < 0.02:
        low, high = max(lowest, low - 0.02), min(highest, high + 0.02)
    for step in _STEPS:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        first, last = max(first, math.floor(lowest / step)), min(last, math.ceil(highest / step))
        if last - first <= _MOST:
            break
    return Axis(round(first * step, 6), round(max(last, first + 1) * step, 6), step)
