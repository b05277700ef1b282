import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from dfl.evaluation import METRICS
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
    assert "Claims: 1 held, 1 did not hold, 1 undecided, 1 not tested." in text
    assert METRICS["accuracy_at_val_threshold"].meaning in " ".join(text.split())
    assert text.rstrip().endswith("out/report.html")
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


def test_print_study__one_matrix_the_page_has_the_others():
    page = full_page()
    first, second = page.matrices
    text = printed(page)
    assert f"{first}: training set by test set" in text
    assert second not in text


def test_print_study__many_failures_are_cut():
    cells = [(f"c{index}", f"x{index % 12}") for index in range(60)]
    failures = pd.DataFrame(cells, columns=["cell", "cause"])
    text = printed(bare_page(failures=failures))
    assert "The first 10 of 12 causes." in text
    assert "5 cells failed: x3" in text
    assert "c3, c15, c27, and 2 more" in text
    assert "lower is better" in printed(bare_page(metric="eer"))


def test_print_study__markup_in_names_is_text():
    page = full_page()
    choices = page.choices.assign(features="[red]x[/red]")
    assert "[red]x[/red]" in printed(replace(page, choices=choices))
