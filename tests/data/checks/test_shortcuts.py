from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from dfl.data import Tree
from dfl.data.checks.shortcuts import find_shortcuts, shortcut_warning, told_apart
from tests.data.sources.image_pairs import write_images, write_pair


def found(root: Path, **options) -> list[tuple[str, str, str, str]]:
    shortcuts = find_shortcuts(Tree(root).scan(), **options)
    return [(each.dataset, each.name, each.real, each.fake) for each in shortcuts]


def test_find_shortcuts__format_before_size(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", {"size": (64, 48)}, {"size": (32, 32), "ending": "png"})
    write_pair(tmp_path, "b", {}, {})
    assert found(tmp_path) == [("a", "format", "JPEG", "PNG"), ("a", "size", "64x48", "32x32")]


def test_find_shortcuts__by_content_and_not_by_ending(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", {"ending": "png", "format": "JPEG"}, {"ending": "png"})
    assert found(tmp_path) == [("a", "format", "JPEG", "PNG")]


def test_find_shortcuts__one_size_against_many(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", {"size": lambda number: (40 + number, 32)}, {"size": (32, 32)})
    assert found(tmp_path) == [("a", "size", "12 different ones", "32x32")]


@pytest.mark.parametrize(("quality", "other"), [(75, 95), (90, 85), (30, 50)])
def test_find_shortcuts__jpeg_quality(tmp_path: Path, quality: int, other: int) -> None:
    write_pair(tmp_path, "a", {"quality": quality}, {"quality": other})
    assert found(tmp_path) == [("a", "JPEG quality", str(quality), str(other))]


def test_find_shortcuts__what_both_classes_have_is_none(tmp_path: Path) -> None:
    mixed = {"size": lambda number: ((48, 32), (32, 48), (64, 64))[number % 3]}
    write_pair(tmp_path, "a", mixed, mixed)
    assert found(tmp_path) == []


def test_find_shortcuts__says_what_most_have(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", {}, {"ending": "png"}, count=20)
    write_images(tmp_path / "a/1_fake", 1)  # one of them is a JPEG
    assert found(tmp_path) == [("a", "format", "JPEG", "PNG in 95%")]


def test_find_shortcuts__few_or_broken_images_say_nothing(tmp_path: Path) -> None:
    write_pair(tmp_path, "few", {}, {"ending": "png"}, count=7)
    write_pair(tmp_path, "broken", {}, {"ending": "png"}, count=8)
    (tmp_path / "broken/0_real/000.jpg").write_text("text")
    assert found(tmp_path) == []


def test_find_shortcuts__looks_at_some_of_all_folders(tmp_path: Path) -> None:
    for name in "xyz":
        write_images(tmp_path / "a/0_real" / name, 10)
        write_images(tmp_path / "a/1_fake" / name, 10, ending="png")
    assert found(tmp_path, most=9) == [("a", "format", "JPEG", "PNG")]


def test_told_apart__is_a_balanced_accuracy() -> None:
    """With many images to a value, leaving one out changes no decision."""
    rng = np.random.default_rng(0)
    label = pd.Series(rng.random(4000) < 0.2).astype(int)
    value = pd.Series(np.where(rng.random(4000) < 0.7, label, rng.integers(0, 3, 4000)))
    table = pd.crosstab(value, label, normalize="columns")

    accuracy = told_apart(value.astype(str), label)

    assert accuracy == pytest.approx(
        balanced_accuracy_score(label, value.map(table.idxmax(axis=1)))
    )


@pytest.mark.parametrize("values", [["same"] * 100, [str(i) for i in range(100)]])
def test_told_apart__chance_where_nothing_is_told(values: list[str]) -> None:
    assert told_apart(pd.Series(values), pd.Series([0, 1] * 50)) == 0.5


def test_shortcut_warning__names_three_and_counts_the_rest(tmp_path: Path) -> None:
    for name in "abcde":
        write_pair(tmp_path, name, {}, {"ending": "png"}, count=8)
    line = shortcut_warning(find_shortcuts(Tree(tmp_path).scan()))
    assert "in a format (real: JPEG; fake: PNG); in b format" in line
    assert "; and in 2 more datasets: that alone tells real from fake, with a balanced" in line
    assert "\n" not in line
