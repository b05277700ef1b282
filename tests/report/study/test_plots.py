import numpy as np
import pandas as pd
import pytest

from dfl.report.figures.plots import figure_image
from dfl.report.study.plots import dot_figure, heat_figure
from tests.report.study_pages import full_page


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("metric", ["accuracy_at_val_threshold", "eer"])
def test_heat_figure__numbers_in_place(metric):
    matrix = list(full_page().matrices.values())[1]
    (axes,) = heat_figure(matrix, metric=metric, title="a$b$").axes
    shown = np.array(texts(axes)).reshape(5, 7)
    wide = matrix.pivot(index="train_set", columns="test_set", values="value")
    for row, train in enumerate(matrix["train_set"].unique()):
        for column, test in enumerate(matrix["test_set"].unique()):
            value = wide.loc[train, test]
            assert shown[row, column] == ("n/a" if np.isnan(value) else f"{100 * value:.1f}")
    assert axes.get_title() == r"a\$b\$"


@pytest.mark.parametrize("metric", ["accuracy_at_val_threshold", "eer"])
def test_heat_figure__ink_stands_out(metric):
    matrix = next(iter(full_page().matrices.values()))
    (axes,) = heat_figure(matrix, metric=metric).axes
    (image,) = axes.images
    for text in axes.texts:
        column, row = (int(each) for each in text.get_position())
        shade = image.cmap(image.norm(image.get_array()[row, column]))[:3]
        grey = float(np.dot(shade, [0.2126, 0.7152, 0.0722]))
        assert (text.get_color() == "white") == (grey < 0.5) or abs(grey - 0.5) < 0.1


def test_heat_figure__all_missing():
    rows = [("a", "b", np.nan, np.nan, np.nan)]
    matrix = pd.DataFrame(rows, columns=["train_set", "test_set", "value", "low", "high"])
    figure = heat_figure(matrix, metric="auroc")
    assert texts(figure.axes[0]) == ["n/a"]
    assert min(figure_image(figure).size) > 100


def test_dot_figure__dots_and_intervals():
    rows = pd.DataFrame({"value": [0.9, 0.8], "low": [0.85, np.nan], "high": [0.95, np.nan]})
    (axes,) = dot_figure(rows, ["a", "b"], metric="auroc").axes
    (dots,) = axes.lines
    assert dots.get_xydata().tolist() == pytest.approx(np.array([[90, 0], [80, 1]]))
    (bars,) = axes.collections
    assert bars.get_segments()[0][:, 0].tolist() == pytest.approx([85, 95])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.yaxis_inverted()
