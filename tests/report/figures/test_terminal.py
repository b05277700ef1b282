import io
from functools import partial

import pytest
from rich.console import Console

from dfl.evaluation import metric_table
from dfl.report.figures.terminal import print_comparison, print_metrics
from tests.report.score_frames import score_frame, two_pairs


def printed(show, content, width=80):
    file = io.StringIO()
    show(content, console=Console(file=file, width=width))
    return file.getvalue()


def test_print_metrics__fits_80_columns_without_colour_when_piped():
    scores = two_pairs()
    long = scores.assign(dataset=scores["dataset"] + "_with_quite_a_long_name_for_a_pair_of_sets")
    text = printed(print_metrics, metric_table(long))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "…" not in text


def test_print_metrics__rows_of_every_scope_in_percent():
    table = metric_table(two_pairs())
    lines = printed(print_metrics, table).splitlines()
    for row in table.itertuples():
        line = next(line for line in lines if line.startswith(row.name + " "))
        assert f"{100 * row.accuracy:.1f}" in line
        assert f"{100 * row.eer:.1f}" in line
    assert "n/a" not in "".join(lines)


def test_print_metrics__one_dataset_has_no_summary():
    text = printed(print_metrics, metric_table(two_pairs().query("dataset == 'easy'")))
    assert "mean of datasets" not in text
    assert "gan" in text


def test_print_metrics__nan_is_explained():
    text = printed(print_metrics, metric_table(two_pairs().query("label == 1")))
    assert "n/a" in text
    assert "of one class only" in text


def test_print_metrics__unknown_rows_are_counted():
    rows = [("a", "p", "real", 0, -1.0), ("b", "p", "gan", 1, 1.0), ("c", "p", "unknown", -1, 1.0)]
    assert "left out: 1" in printed(print_metrics, metric_table(score_frame(*rows)))
    assert "No image here has a label" in printed(
        print_metrics, metric_table(score_frame(*rows[2:]))
    )


def test_print_metrics__markup_in_names_is_text():
    table = metric_table(score_frame(("a", "[red]x[/]", "gan", 1, 1.0)))
    assert "[red]x[/]" in printed(print_metrics, table)


@pytest.mark.parametrize("width", [80, 120])
def test_print_comparison__a_row_a_head(width):
    tables = {"svm": metric_table(two_pairs()), "lda": metric_table(two_pairs(seed=1))}
    lines = printed(partial(print_comparison, first="Head"), tables, width).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("Head ") for line in lines)
    for name, table in tables.items():
        line = next(line for line in lines if line.startswith(name))
        pooled = table[table["scope"] == "pooled"].iloc[0]
        worst = table[table["scope"] == "worst"].iloc[0]
        assert line.split()[1] == f"{100 * pooled['accuracy']:.1f}"
        assert line.split()[-1] == f"{100 * worst['accuracy']:.1f}"
