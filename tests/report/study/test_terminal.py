import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from dfl.report.study.terminal import print_study
from tests.report.study_pages import bare_page, full_page


def printed(page, files=None, width=80):
    file = io.StringIO()
    print_study(page, files, console=Console(file=file, width=width))
    return file.getvalue()


def test_print_study__fits_80_columns_without_colour_when_piped():
    text = printed(full_page())
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "\u2026" not in text


def test_print_study__says_what_was_found():
    text = printed(full_page(), {"Page": Path("out/report.html")})
    assert "clip+dino / none / rbf_svm" in text
    assert "93.4" in text
    assert "combined, condition blur+jpeg" in text
    assert "did not hold" in text
    assert "3 cells failed of 2 causes" in text
    assert "2 cells failed: ValueError: 3 images of one class" in text
    assert "1 cell failed: MemoryError" in text
    assert "-0.5 (-1.1 to +0.1)" in text  # to the best features
    assert "A: clip+dino / rbf_svm, mean over the datasets" in text
    assert "+1.9 (+0.6 to +3.1)" in text
    assert "no clear difference\n" in text
    assert text.rstrip().endswith("out/report.html")
    assert text.index("linear_probe  ") < text.index("naive_bayes")
    assert "Test condition" not in text  # it has one level
    assert "nan" not in text


def test_print_study__matrix_row_by_row():
    page = full_page()
    lines = printed(page).splitlines()
    (table, *_) = page.matrices.values()
    for train, own in table.groupby("train_set", sort=False):
        said = [line.split()[1:] for line in lines if line.startswith(f"{train} ")]
        numbers = [number for line in said for number in line]
        expected = [f"{100 * value:.1f}" for value in own["value"]]
        assert numbers[: len(expected)] == expected


def test_print_study__matrix_of_many_test_sets_is_whole():
    names = [f"generator_{i:02}" for i in range(20)] + ["pooled", "macro", "worst"]
    table = pd.DataFrame(
        {"train_set": "combined", "test_set": names, "value": np.linspace(0.5, 0.72, 23)}
    ).assign(low=0.4, high=0.8)
    text = printed(replace(bare_page(), matrices={"Best": table}))
    for name, value in zip(names, table["value"], strict=True):
        assert name.removeprefix("generator_") in text
        assert f" {100 * value:.1f}" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_print_study__can_be_written_in_plain_ascii():
    full = full_page()  # the names in it are the study's own; the numbers are ours
    matrices = {"Best": next(iter(full.matrices.values()))}
    page = replace(full, matrices=matrices, failures=full.failures.head(0))
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_study(page, console=Console(file=file, width=80))


def test_print_study__nothing():
    text = printed(bare_page())
    assert "No configuration could be chosen." in text


def test_print_study__many_levels_and_failures_are_cut():
    effects = pd.DataFrame(
        [("features", f"f{index}", index / 100, 0.0, 1.0, 1) for index in range(40)],
        columns=["axis", "level", "value", "low", "high", "n_cells"],
    ).assign(difference=-0.1, diff_low=-0.2, diff_high=0.1)
    cells = [(f"c{index}", f"x{index % 12}") for index in range(60)]
    failures = pd.DataFrame(cells, columns=["cell", "cause"])
    text = printed(bare_page(effects=effects, failures=failures))
    assert "The first 12 of 40." in text
    assert "f39 " in text
    assert "f20 " not in text
    assert "The first 10 of 12 causes." in text
    assert "5 cells failed: x3" in text
    assert "c3, c15, c27, and 2 more" in text
    lower = printed(bare_page(effects=effects, metric="eer"))
    assert "f0 " in lower
    assert "f39 " not in lower


def test_print_study__markup_in_names_is_text():
    page = full_page()
    choices = page.choices.assign(features="[red]x[/red]")
    assert "[red]x[/red]" in printed(replace(page, choices=choices))
