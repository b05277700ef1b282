"""ROC curves and confusion matrices, as matplotlib figures without global state."""

from io import BytesIO
from itertools import cycle
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dfl.evaluation import binary_metrics, known_rows, roc_points, unique_images
from dfl.types import FAKE, REAL

# Okabe and Ito's palette (Color Universal Design, 2008) less its black and its yellow, which is
# too faint for a line; the dash changes as well, so that the curves differ in grey print.
_COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES: Final = ("-", "--", "-.", ":")
_POOLED: Final = "all images"


def roc_figure(scores: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the ROC curve of each dataset and of all images together, with its AUROC.

    Args:
        scores: A score table; rows of unknown label are left out, and a dataset of one class has
            no curve and "n/a" for its AUROC.
        title: The line above the axes.

    Returns:
        A figure with an Agg canvas: ``figure.savefig(path)`` writes it.
    """
    known = known_rows(scores)
    names = [str(name) for name in known["dataset"].unique()]
    longest = max(len(name) for name in [*names, _POOLED])
    figure, axes = _axes(5.3 + 0.075 * longest, 4.2)  # inches: square axes, and the legend beside
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, zorder=1)
    styles = cycle((color, dash) for dash in _DASHES for color in _COLORS)
    for name, (color, dash) in zip(names, styles, strict=False):
        _curve(axes, known[known["dataset"] == name], name, color=color, dash=dash, width=1.4)
    if len(names) != 1:
        _curve(axes, unique_images(known), _POOLED, color="black", dash="-", width=2.0)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title=title)
    axes.set(xlabel="False positive rate (real called fake)")
    axes.set(ylabel="True positive rate (fake called fake)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        title="AUROC",
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        loc="outside right center",
        alignment="left",
    )
    return figure


def confusion_figure(scores: pd.DataFrame, *, threshold: float = 0.0, title: str = "") -> Figure:
    """Draw the confusion matrix over all images, each counted once.

    Args:
        scores: A score table; rows of unknown label are left out.
        threshold: A score above it says fake.
        title: The line above the axes.

    Returns:
        A figure with an Agg canvas. Colour and percentages are shares of the row, that is of the
        images that truly are real, or fake.
    """
    images = unique_images(known_rows(scores))
    says_fake = (images["score"] > threshold).to_numpy()
    counts = np.zeros((2, 2), dtype=np.int64)
    for true in (REAL, FAKE):
        verdict = says_fake[(images["label"] == true).to_numpy()]
        counts[true] = [np.count_nonzero(~verdict), np.count_nonzero(verdict)]
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure, axes = _axes(3.4, 3.4)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if share[row, column] > 0.55 else "black"
        percent = f"{100 * share[row, column]:.1f} %" if counts[row].sum() else "no image"
        axes.text(column, row - 0.07, f"{count}", color=ink, ha="center", va="center", fontsize=15)
        axes.text(column, row + 0.17, percent, color=ink, ha="center", va="center", fontsize=9)
    axes.set_xticks([0, 1], ["real", "fake"])
    axes.set_yticks([0, 1], ["real", "fake"], rotation=90, va="center")
    axes.tick_params(length=0)
    axes.set(xlabel="Detector says", ylabel="Image is", title=title)
    return figure


def figure_image(figure: Figure) -> Image.Image:
    """Render a figure of this module as an RGB image."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=150, layout="compressed")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _curve(
    axes: Axes, rows: pd.DataFrame, name: str, *, color: str, dash: str, width: float
) -> None:
    name = name.replace("$", r"\$")  # matplotlib sets what stands between dollars as a formula
    auroc = binary_metrics(rows["score"], rows["label"])["auroc"]
    if np.isnan(auroc):
        axes.plot([], [], color=color, linestyle=dash, label=f"  n/a   {name}")
        return
    fpr, tpr = roc_points(rows["score"], rows["label"])
    label = f"{auroc:.3f}  {name}"
    axes.plot(fpr, tpr, color=color, linestyle=dash, linewidth=width, label=label)
