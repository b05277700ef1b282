import matplotlib
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dfl.report.figures.plots import confusion_figure, figure_image, roc_figure
from tests.report.score_frames import score_frame, two_pairs


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_roc_figure__a_curve_a_dataset_and_one_for_all_with_auroc():
    scores = two_pairs()
    figure = roc_figure(scores)
    easy = scores[scores["dataset"] == "easy"]
    texts = legend_texts(figure)
    assert texts[0] == f"{roc_auc_score(easy['label'], easy['score']):.3f}  easy"
    assert [text.split(maxsplit=1)[1] for text in texts] == ["easy", "hard", "all images"]
    for line in figure.axes[0].lines[1:]:
        assert (line.get_xdata()[0], line.get_xdata()[-1]) == (0, 1)


def test_roc_figure__one_dataset_has_one_curve():
    assert len(legend_texts(roc_figure(two_pairs().query("dataset == 'easy'")))) == 1


def test_roc_figure__one_class_has_no_curve():
    scores = two_pairs().query("dataset == 'easy' or label == 1")
    assert legend_texts(roc_figure(scores))[1].split() == ["n/a", "hard"]


def test_roc_figure__legend_lies_within_the_picture():
    scores = two_pairs()
    scores["dataset"] += "_" + "m" * 40
    figure = roc_figure(scores)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert box.x0 >= figure.axes[0].get_window_extent().x1


def test_roc_figure__dollars_and_underscores_are_text():
    figure = roc_figure(two_pairs().replace({"dataset": {"easy": "_a$b$_{c"}}))
    figure.canvas.draw()
    assert r"_a\$b\$_{c" in legend_texts(figure)[0]


def test_roc_figure__more_datasets_than_styles():
    parts = [(f"{k}/{i}", f"set{k}", "g", i % 2, float(i)) for k in range(30) for i in range(4)]
    lines = roc_figure(score_frame(*parts)).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines[1:25]}) == 24
    assert len(lines) == 32


def test_confusion_figure__counts_each_image_once():
    scores = score_frame(
        ("r", "a", "real", 0, -1.0),
        ("r", "b", "real", 0, -1.0),
        ("s", "b", "real", 0, 0.0),
        ("t", "b", "real", 0, 2.0),
        ("f", "b", "gan", 1, 1.0),
        ("u", "b", "unknown", -1, 1.0),
    )
    texts = [text.get_text() for text in confusion_figure(scores).axes[0].texts]
    assert texts[::2] == ["2", "1", "0", "1"]
    assert texts[1::2] == ["66.7 %", "33.3 %", "0.0 %", "100.0 %"]


def test_confusion_figure__threshold_and_missing_class():
    scores = score_frame(("f", "b", "gan", 1, 1.0), ("g", "b", "gan", 1, 3.0))
    texts = [text.get_text() for text in confusion_figure(scores, threshold=2).axes[0].texts]
    assert texts == ["0", "no image", "0", "no image", "1", "50.0 %", "1", "50.0 %"]


@pytest.mark.parametrize("make", [roc_figure, confusion_figure])
def test_figures__render_and_leave_no_global_state(make):
    image = figure_image(make(two_pairs(), title="test"))
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 10
    if "matplotlib.pyplot" in __import__("sys").modules:
        assert matplotlib.pyplot.get_fignums() == []
