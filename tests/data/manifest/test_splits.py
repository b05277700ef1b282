import random
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.splits import Splits, assign_splits
from dfl.errors import ConfigError, ManifestError
from tests.data.manifest.manifest_examples import manifests


def manifest_of(rows: list[tuple[str, int, str, str, str]]) -> Manifest:
    names = ("path", "label", "dataset", "group", "split")
    table = [dict(zip(names, row, strict=True), generator="g") for row in rows]
    return Manifest.from_rows(table, Path())


def numbered(count: int, dataset: str = "d", label: int = 0, split: str = "") -> list:
    where = f"{dataset}{label}{split}"
    return [(f"{where}/{i}", label, dataset, f"{where}/{i}", split) for i in range(count)]


def rows_of(frame: pd.DataFrame, split: str) -> int:
    return int((frame["split"] == split).sum())


@given(manifests(), st.integers(), st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_assign_splits__no_group_and_no_path_on_two_sides(
    manifest: Manifest, seed: int, test_fraction: float, val_fraction: float
) -> None:
    fractions = {"test_fraction": test_fraction, "val_fraction": val_fraction}
    frame = assign_splits(manifest, Splits(**fractions), seed=seed).frame
    assert set(frame["split"]) <= {"train", "val", "test"}
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert frame.groupby("path")["split"].nunique().max() == 1
    before = manifest.frame["split"]
    held = before.isin(["val", "test"])
    assert (frame["split"][held] == before[held]).all()
    assert (frame["split"][before == "train"] != "test").all()
    pd.testing.assert_frame_equal(frame.drop(columns="split"), manifest.frame.drop(columns="split"))


@given(manifests(), st.randoms(use_true_random=False))
def test_assign_splits__does_not_depend_on_row_order(
    manifest: Manifest, rng: random.Random
) -> None:
    order = list(range(len(manifest)))
    rng.shuffle(order)
    shuffled = Manifest(manifest.frame.iloc[order].reset_index(drop=True), Path())
    splits = assign_splits(manifest, seed=3).frame["split"]
    assert assign_splits(shuffled, seed=3).frame["split"].tolist() == splits.iloc[order].tolist()


@given(manifests(), manifests())
def test_assign_splits__do_not_depend_on_datasets_that_share_nothing(
    manifest: Manifest, other: Manifest
) -> None:
    columns = ["path", "group", "dataset"]
    apart = other.frame.assign(**{name: "other " + other.frame[name] for name in columns})
    ours = manifest.frame.assign(**{name: "our " + manifest.frame[name] for name in columns})
    alone = assign_splits(Manifest(ours, Path()), seed=1).frame
    both = Manifest(pd.concat([ours, apart], ignore_index=True), Path())
    beside = assign_splits(both, seed=1).frame[: len(ours)]
    assert beside["split"].tolist() == alone["split"].tolist()


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.integers(),
    st.floats(0, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_assign_splits__fractions_as_near_as_the_largest_group_allows(
    sizes: list[int], seed: int, test_fraction: float, val_fraction: float
) -> None:
    rows = [(f"{g}/{i}", 0, "d", f"{g}", "") for g, size in enumerate(sizes) for i in range(size)]
    fractions = {"test_fraction": test_fraction, "val_fraction": val_fraction}
    frame = assign_splits(manifest_of(rows), Splits(**fractions), seed=seed).frame
    tested = rows_of(frame, "test")
    near = max(sizes) / 2 + 1e-6
    assert abs(tested - test_fraction * len(rows)) <= near
    assert abs(rows_of(frame, "val") - val_fraction * (len(rows) - tested)) <= near


@pytest.mark.parametrize(
    ("count", "test", "val"), [(10, 2, 1), (100, 20, 8), (13, 3, 1), (5, 1, 0)]
)
def test_assign_splits__fractions_of_each_dataset_and_label(
    count: int, test: int, val: int
) -> None:
    rows = numbered(count, "a", 0) + numbered(3 * count, "a", 1) + numbered(count, "b", 0)
    frame = assign_splits(manifest_of(rows), seed=1).frame
    for (dataset, label), part in frame.groupby(["dataset", "label"]):
        counts = part["split"].value_counts()
        if (dataset, label) != ("a", 1):
            assert (counts["test"], counts.get("val", 0)) == (test, val)
        assert abs(counts["test"] - 0.2 * len(part)) <= 0.5
        assert abs(counts.get("val", 0) - 0.1 * (len(part) - counts["test"])) <= 0.5


def test_assign_splits__is_as_near_as_groups_allow() -> None:
    sizes = [30, 1, 1, 1, 30, 2, 3, 2, 15, 15]  # 100 images
    rows = [(f"{g}/{i}", 0, "d", f"{g}", "") for g, size in enumerate(sizes) for i in range(size)]
    for seed in range(20):
        frame = assign_splits(manifest_of(rows), Splits(val_fraction=0), seed=seed).frame
        assert abs((frame["split"] == "test").sum() - 20) <= 5


def test_assign_splits__frozen() -> None:
    frame = assign_splits(manifest_of(numbered(20)), seed=7).frame
    chosen = frame.groupby("split")["path"].apply(list).to_dict()
    assert chosen["test"] == FROZEN_TEST
    assert chosen["val"] == FROZEN_VAL


# Splits are part of every published number: this must never change.
FROZEN_TEST = ["d0/3", "d0/4", "d0/9", "d0/12"]
FROZEN_VAL = ["d0/6", "d0/15"]


def test_assign_splits__seeds_differ() -> None:
    manifest = manifest_of(numbered(50))
    one, two = (assign_splits(manifest, seed=seed).frame["split"].tolist() for seed in (0, 1))
    assert one != two


def test_assign_splits__an_image_of_two_pairs_has_one_split() -> None:
    rows = [(f"{i}", 0, dataset, f"{i}", "") for i in range(50) for dataset in "ab"]
    frame = assign_splits(manifest_of(rows), seed=0).frame
    assert frame.groupby("path")["split"].nunique().max() == 1
    assert (frame[frame["dataset"] == "b"]["split"] == "test").sum() == 10


def test_assign_splits__layout_without_validation_gives_some_of_its_training_part() -> None:
    rows = numbered(100, split="train") + numbered(40, split="test")
    frame = assign_splits(manifest_of(rows), seed=0).frame
    assert frame["split"].value_counts().to_dict() == {"train": 90, "test": 40, "val": 10}
    kept = assign_splits(manifest_of(rows), Splits(val_fraction=0), seed=0).frame
    assert kept["split"].value_counts().to_dict() == {"train": 100, "test": 40}


def test_assign_splits__given_splits_count() -> None:
    rows = numbered(20, split="test") + numbered(10, split="val") + numbered(70)
    frame = assign_splits(manifest_of(rows), seed=0).frame
    assert frame["split"].value_counts().to_dict() == {"train": 70, "test": 20, "val": 10}


def test_assign_splits__a_group_follows_its_decided_member() -> None:
    rows = [("a", 0, "d", "g", "test"), ("b", 0, "d", "g", "")]
    assert assign_splits(manifest_of(rows), seed=0).frame["split"].tolist() == ["test", "test"]


def test_assign_splits__everything_tested() -> None:
    frame = assign_splits(manifest_of(numbered(9)), Splits(test_fraction=1), seed=0).frame
    assert set(frame["split"]) == {"test"}


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"test_fraction": 1.1}, r"test_fraction: must be in \[0, 1\], got 1.1"),
        ({"test_fraction": -0.1}, "test_fraction"),
        ({"val_fraction": 1.0}, r"val_fraction: must be in \[0, 1\), got 1.0"),
    ],
)
def test_splits__bad_fraction(fractions: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Splits(**fractions)


def test_assign_splits__group_with_two_splits() -> None:
    rows = [("a", 0, "d", "g", "test"), ("b", 0, "d", "g", "train")]
    with pytest.raises(ManifestError, match="group 'g' has two splits, 'test' and 'train'"):
        assign_splits(manifest_of(rows), seed=0)
