"""ROC curves as lines of an inline drawing, whole and at the few false alarms that matter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

MOST_CURVES: Final = 8
"""More lines than this cannot be told apart."""

_MOST_POINTS: Final = 300
_SIDE: Final = 300.0  # of the drawing's square, in its own units

_Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A line: its name, the points as SVG writes them, and the area below all of the curve."""

    name: str
    points: str
    area: float


@dataclass(frozen=True)
class RocPanel:
    """Curves up to a false positive rate; ticks are position and percent."""

    title: str
    curves: list[Curve]
    ticks: list[tuple[float, str]]


def roc_panels(roc: Mapping[str, tuple[_Points, _Points]]) -> list[RocPanel]:
    """Draw the first curves twice: over all false positive rates, and up to 10 %.

    Args:
        roc: By name, false and true positive rates, each (K,), rising from 0 to 1.

    Returns:
        Two panels of 300 x 300 units; none if there is no curve.
    """
    shown = {
        name: (np.asarray(fpr, np.float64), np.asarray(tpr, np.float64))
        for name, (fpr, tpr) in list(roc.items())[:MOST_CURVES]
        if len(fpr) > 1 and np.isfinite(fpr).all() and np.isfinite(tpr).all()
    }
    if not shown:
        return []
    return [
        _panel("All thresholds", shown, 1.0),
        _panel("Few false alarms: up to 10 %", shown, 0.1),
    ]


def _panel(title: str, roc: Mapping[str, tuple[_Points, _Points]], end: float) -> RocPanel:
    curves = []
    for name, (fpr, tpr) in roc.items():
        area = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
        curves.append(Curve(name, _line(*_cut(fpr, tpr, end), end), area))
    ticks = [(_SIDE * i / 5, f"{100 * end * i / 5:.0f}") for i in range(6)]
    return RocPanel(title, curves, ticks)


def _cut(fpr: _Points, tpr: _Points, end: float) -> tuple[_Points, _Points]:
    """Keep what lies left of ``end``, and add the point on it."""
    left = fpr <= end
    if left.all():
        return fpr, tpr
    # The first point right of the end; the line to it crosses the end.
    after = int(np.argmin(left))
    step = (end - fpr[after - 1]) / (fpr[after] - fpr[after - 1])
    height = tpr[after - 1] + step * (tpr[after] - tpr[after - 1])
    return np.append(fpr[left], end), np.append(tpr[left], height)


def _line(fpr: _Points, tpr: _Points, end: float) -> str:
    if len(fpr) > _MOST_POINTS:
        kept = np.unique(np.linspace(0, len(fpr) - 1, _MOST_POINTS).round().astype(int))
        fpr, tpr = fpr[kept], tpr[kept]
    x, y = _SIDE * fpr / end, _SIDE * (1 - tpr)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
