"""A study's heat maps and dot plots as matplotlib figures, for where no page can be shown."""

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dfl.report.study.summary import LOWER_IS_BETTER, METRIC_NAMES

__all__ = ["dot_figure", "heat_figure"]

_BLUE: Final = "#0072B2"


def heat_figure(matrix: pd.DataFrame, *, metric: str, title: str = "") -> Figure:
    """Draw training sets against test sets, the number in each cell.

    Args:
        matrix: Long table: train_set, test_set, value in [0, 1]; what is missing stays white.
        metric: A metric of the study; strong colour is good.
        title: The line above.

    Returns:
        A figure with an Agg canvas.
    """
    down, across = (list(dict.fromkeys(matrix[side])) for side in ("train_set", "test_set"))
    grid = np.full((len(down), len(across)), np.nan)
    for train, test, value in matrix[["train_set", "test_set", "value"]].itertuples(index=False):
        grid[down.index(train), across.index(test)] = value
    figure = Figure(
        figsize=(2.2 + 0.75 * len(across), 1.6 + 0.45 * len(down)), dpi=150, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    there = grid[np.isfinite(grid)]
    low, high = (there.min(), there.max()) if there.size else (0.0, 1.0)
    colours = "cividis" if metric in LOWER_IS_BETTER else "cividis_r"
    axes.imshow(grid, cmap=colours, vmin=low, vmax=max(high, low + 1e-6), aspect="auto")
    middle = (low + high) / 2
    for (row, column), value in np.ndenumerate(grid):
        dark = (value < middle) == (metric in LOWER_IS_BETTER)
        said = "n/a" if np.isnan(value) else f"{100 * value:.1f}"
        ink = "white" if dark and said != "n/a" else "black"
        axes.text(column, row, said, color=ink, ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(across)), [_plain(name) for name in across], rotation=30, ha="right")
    axes.set_yticks(range(len(down)), [_plain(name) for name in down])
    axes.tick_params(length=0)
    axes.set(xlabel="Tested on", ylabel="Trained on")
    axes.set_title(_plain(title or f"{METRIC_NAMES.get(metric, metric)}, %"), fontsize=10)
    return figure


def dot_figure(rows: pd.DataFrame, labels: list[str], *, metric: str, title: str = "") -> Figure:
    """Draw a dot with its 95 % interval for each row, the first row on top.

    Args:
        rows: value, low, high in [0, 1]; nan leaves a dot or an interval out.
        labels: What each row is.
        metric: What the axis shows.
        title: The line above.

    Returns:
        A figure with an Agg canvas.
    """
    figure = Figure(figsize=(7.0, 1.3 + 0.26 * len(rows)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    numbers = 100 * rows[["value", "low", "high"]].to_numpy(dtype=np.float64)
    at = np.arange(len(rows))
    axes.hlines(at, numbers[:, 1], numbers[:, 2], color=_BLUE, alpha=0.55, linewidth=2.5)
    axes.plot(numbers[:, 0], at, "o", color=_BLUE, markersize=5)
    axes.set_yticks(at, [_plain(label) for label in labels], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=f"{METRIC_NAMES.get(metric, metric)}, %")
    axes.set_title(_plain(title), fontsize=10)
    return figure


def _plain(name: object) -> str:
    # matplotlib sets what stands between dollars as a formula
    return str(name).replace("$", r"\$")
