import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from dfl.report.study.page.curves import roc_panels
from dfl.report.study.page.dots import effect_plots, leader_plot, model_plot
from dfl.report.study.page.heat import cross_maps, model_map
from dfl.report.study.page.tables import claims, comparisons, failures, metric_rows
from dfl.report.study.page.wording import (
    bare,
    cell_text,
    count,
    interval,
    p_value,
    percent,
    points,
    points_interval,
    spans_zero,
    training,
)
from tests.report.study_pages import full_page


def table(*rows, columns):
    return pd.DataFrame(rows, columns=columns.split())


MODELS = table(
    ("a", "svm", 0.7, 0.65, 0.75, True),  # validation does not know which is best on test
    ("a", "lda", 0.8, 0.75, 0.85, False),
    ("b", "svm", 0.9, 0.85, 0.95, True),
    columns="features head value low high chosen",
)


def test_model_plot__the_head_that_validation_chose():
    plot = model_plot(MODELS, "accuracy", {("b", "svm"): "fine-tuned", ("a", "lda"): "text"})
    assert [(row.name, row.value, row.tag) for row in plot.rows] == [
        ("b", "90.0\u00a0%", "fine-tuned"),
        ("a", "70.0\u00a0%", ""),
    ]
    assert plot.rows[1].detail == "with svm"
    ((at, what),) = plot.rows[1].others
    assert (at, what) == (plot.axis.place(0.8), "lda: 80.0\u00a0%")
    dot = plot.rows[1].dot
    assert dot.start == plot.axis.place(0.65)
    assert dot.start + dot.width == pytest.approx(plot.axis.place(0.75))


def test_model_plot__lower_can_be_better():
    assert [row.name for row in model_plot(MODELS, "eer").rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("metric", "shown"), [("accuracy_at_val_threshold", False), ("auroc", True)]
)
def test_model_plot__guessing_only_where_it_is_the_same_for_all_sets(metric, shown):
    plot = model_plot(MODELS.assign(low=0.4), metric)
    assert plot.chance == (plot.axis.place(0.5) if shown else None)
    assert model_plot(MODELS, "auroc").chance is None  # it lies left of the axis


def test_model_map__missing_combination_has_no_shade():
    found = model_map(MODELS, "accuracy")
    assert list(found.rows) == ["b", "a"]
    cells = dict(zip(found.columns, found.rows["b"], strict=True))
    assert (cells["lda"].value, cells["lda"].shade) == ("\u2013", None)
    assert cells["svm"].value == "90.0"
    marked = [
        column for column, cell in zip(found.columns, found.rows["a"], strict=True) if cell.own
    ]
    assert marked == ["svm"]


def test_cross_maps__one_scale_and_marks():
    rows = [("x", "x", 1.0), ("x", "y", 0.5), ("y", "x", 0.5), ("x", "pooled", 0.75)]
    long = table(
        *((*row, row[2], row[2]) for row in rows), columns="train_set test_set value low high"
    )
    found = cross_maps({"one": long, "two": long.assign(value=0.6), "none": long.head(0)}, "auroc")
    assert list(found) == ["one", "two"]
    first, second = found["one"].rows["x"], found["two"].rows["x"]
    assert [cell.shade for cell in first] == [10, 0, 5]
    assert [cell.own for cell in first] == [True, False, False]
    assert [cell.first_summary for cell in first] == [False, False, True]
    assert {cell.shade for cell in second} == {2}
    assert found["one"].rows["y"][1].shade is None
    assert cross_maps({"one": long}, "eer")["one"].rows["x"][1].shade == 10


def test_effect_plots__sorted_on_one_scale():
    plots = effect_plots(full_page().effects, "accuracy_at_val_threshold")
    seen = "on the datasets trained on"
    assert list(plots)[:2] == [f"features, {seen}", f"reduction, {seen}"]
    assert len({plot.axis for plot in plots.values()}) == 1
    values = [float(bare(row.value)) for row in plots[f"head, {seen}"].rows]
    assert values == sorted(values, reverse=True)
    best, second, *_ = plots[f"features, {seen}"].rows
    assert (best.behind, best.behind_interval) == ("best", "")
    assert second.behind == "\u22120.5\u00a0points"
    assert second.behind_interval == "\u22121.1 to +0.1: no clear difference"
    assert plots[f"features, {seen}"].rows[-1].behind_interval == "\u221215.6 to \u221214.4"
    assert plots["test condition, on all datasets"].rows[0].detail == "945 cells"


def test_leader_plot__names_what_is_not_frozen():
    leaders = full_page().leaders
    plot = leader_plot(leaders, "accuracy_at_val_threshold", most=25)
    assert len(plot.rows) == 25
    assert {row.tag for row in plot.rows} == {"", "text", "fine-tuned"}
    assert plot.rows[1].detail.startswith("pca \u00b7 linear_probe \u00b7 ")
    assert plot.rows[0].detail.startswith("rbf_svm \u00b7 ")


def test_roc_panels__points_lie_on_the_curve():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 500)
    score = rng.normal(size=1000) + label
    fpr, tpr, _ = roc_curve(label, score)
    whole, few = roc_panels({"a": (fpr, tpr)})
    assert whole.curves[0].area == pytest.approx(roc_auc_score(label, score))
    for panel, end in ((whole, 1.0), (few, 0.1)):
        at = np.array([pair.split(",") for pair in panel.curves[0].points.split()], dtype=float)
        x, y = at[:, 0] / 300 * end, 1 - at[:, 1] / 300
        assert (np.diff(x) >= 0).all()
        assert x[-1] == pytest.approx(end)
        low = np.array([tpr[fpr <= each + 2e-3].max() for each in x])
        high = np.array([tpr[fpr >= each - 2e-3].min() for each in x])
        assert (y <= low + 2e-3).all()
        assert (y >= high - 2e-3).all()


def test_roc_panels__few_points_many_curves_or_none():
    chance = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    panels = roc_panels({f"{index}": chance for index in range(12)})
    assert [len(panel.curves) for panel in panels] == [8, 8]
    assert panels[1].curves[0].points == "0.0,300.0 300.0,270.0"
    assert roc_panels({}) == []
    assert roc_panels({"a": (np.array([0.0, np.nan]), np.array([0.0, 1.0]))}) == []


def test_claims__difference_on_both_sides_of_zero():
    found = claims(full_page().claims)
    assert found[0].dot.at > 50 > found[2].dot.at
    assert found[0].dot.start > 50
    assert found[1].dot.start < 50 < found[1].dot.start + found[1].dot.width
    assert found[3].dot is None
    assert [each.kind for each in found] == ["held", "undecided", "did-not-hold", "not-tested"]


COMPARISONS = table(
    ("a", "b", "macro", 0.02, 0.01, 0.03, 0.004, 0.012, 0.0006),
    ("a", "c", "macro", -0.02, -0.03, -0.01, 0.03, 0.06, np.nan),
    ("a", "d", "macro", 0.01, -0.01, 0.03, 0.3, 0.3, 0.2),
    ("a", "b", "x", np.nan, np.nan, np.nan, np.nan, np.nan, np.nan),
    columns="a b test_set difference low high p p_holm mcnemar_p",
)


def test_comparisons__finding_follows_interval_and_correction():
    found = comparisons(COMPARISONS, "auroc")
    assert list(found) == ["a, mean over the datasets", "a, on x"]
    first, second = found.values()
    assert [(each.b, each.finding) for each in first] == [
        ("b", "A is better"),
        ("c", "B is better, but not clearly after correction"),
        ("d", "no clear difference"),
    ]
    assert [each.p for each in first] == ["0.004", "0.030", "0.300"]
    assert [each.p_holm for each in first] == ["0.012", "0.060", "0.300"]
    assert [each.mcnemar_p for each in first] == ["< 0.001", "n/a", "0.200"]
    assert [each.finding for each in second] == ["cannot be told"]
    lower = comparisons(COMPARISONS, "eer")["a, mean over the datasets"]
    assert lower[0].finding == "B is better"


def test_failures__equal_causes_together():
    found = failures(table(("a", "x"), ("b", "y"), ("c", "y"), ("d", None), columns="cell cause"))
    assert [(each.cause, each.count, each.cells) for each in found] == [
        ("y", 2, ["b", "c"]),
        ("x", 1, ["a"]),
        ("none", 1, ["d"]),
    ]
    assert failures(pd.DataFrame()) == []


def test_metric_rows__thousands_are_set_apart():
    rows = full_page().metrics.head(1).assign(n_real=1746360, n_fake=np.nan)
    ((row,),) = metric_rows(rows).values()
    assert row.counts == ("1,746,360", "")


def test_wording__numbers():
    assert percent(np.float32(0.5)) == "50.0\u00a0%"
    assert percent(None) == percent(float("nan")) == percent("x") == "n/a"
    assert interval(0.1, 0.25) == "10.0\u201325.0\u00a0%"
    assert bare(interval(0.1, 0.25)) == "10.0\u201325.0"
    assert interval(0.1, np.nan) == points_interval(None, 0.1) == ""
    assert points(-0.0004) == "0.0\u00a0points"
    assert points(0.012) == "+1.2\u00a0points"
    assert points_interval(-0.01, 0.02) == "\u22121.0 to +2.0"
    assert p_value(0.0004) == "< 0.001"
    assert p_value(np.nan) == "n/a"
    assert count(1746360) == "1,746,360"
    assert count(np.nan) == ""
    assert [spans_zero(*ends) for ends in ((-1, 1), (0, 1), (0.1, 1), (-1, -0.1))] == [
        True,
        True,
        False,
        False,
    ]
    assert spans_zero(np.nan, 1)
    assert training("combined") == "all datasets together"
    assert training("progan") == "progan"


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, "", np.nan])
def test_cell_text__missing_is_none(value):
    assert cell_text(value) == "none"


def test_cell_text__anything_else_is_itself():
    assert cell_text("pca") == "pca"
    assert cell_text(0) == "0"
