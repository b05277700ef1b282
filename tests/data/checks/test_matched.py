from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from dfl.data import ImageSet, Manifest, Pair, Pairs, Tree
from dfl.data.checks.matched import Match, content_auc, find_matched, thumbnail_content


def write_scenes(
    folder: Path, count: int, *, seed: int = 0, shade: float = 0, ending: str = "png"
) -> None:
    """Write images of a few flat areas whose colours vary, with some more light in all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        areas = rng.normal(110, 30, (4, 4, 3)) + rng.normal(0, 20, (1, 1, 3)) + shade
        pixels = areas.clip(0, 255).astype(np.uint8).repeat(10, axis=0).repeat(12, axis=1)
        Image.fromarray(pixels).save(folder / f"{number:03d}_{folder.name[2:]}.{ending}")


def write_scene_pair(root: Path, name: str, count: int, shade: float = 0, ending="png") -> None:
    write_scenes(root / name / "0_real", count, seed=1)
    write_scenes(root / name / "1_fake", count, seed=2, shade=shade, ending=ending)


def judged(root: Path, **options) -> Match:
    (match,) = find_matched(Tree(root).scan(), **options)
    return match


def test_find_matched__same_subjects(tmp_path: Path) -> None:
    write_scene_pair(tmp_path, "a", 60)
    match = judged(tmp_path)
    assert match.matched
    assert match.why.startswith("neither files nor colours and layout of thumbnails tell the class")


def test_find_matched__other_colours(tmp_path: Path) -> None:
    write_scene_pair(tmp_path, "a", 30, shade=60)
    match = judged(tmp_path)
    assert not match.matched
    assert "thumbnails tell the classes apart with AUC 1.00" in match.why


def test_find_matched__files_are_asked_first(tmp_path: Path) -> None:
    write_scene_pair(tmp_path, "a", 10, ending="bmp")
    assert judged(tmp_path) == Match(
        "a", False, "format (real: PNG; fake: BMP) tells the classes apart"
    )


def test_find_matched__few_images_are_not_called_matched(tmp_path: Path) -> None:
    write_scene_pair(tmp_path, "a", 19)
    assert judged(tmp_path).why == (
        "cannot be told: only 19 images of a class can be read, 20 are needed"
    )


def test_find_matched__a_wide_interval_is_not_called_matched(tmp_path: Path) -> None:
    write_scene_pair(tmp_path, "a", 20, shade=22)
    match = judged(tmp_path)
    assert not match.matched
    assert match.why.startswith("cannot be told with 40 images: colours and layout")


def test_find_matched__groups_with_both_classes_are_the_same_subjects(tmp_path: Path) -> None:
    """What the generator did to the colours is then no other subject."""
    write_scene_pair(tmp_path, "a", 25, shade=60)
    one = ImageSet("a", group=r"(\d+)_")
    match = find_matched(Pairs(tmp_path, {"a": Pair(one, one)}).scan())
    assert match == [Match("a", True, "100% of a class share their group with the other class")]


def test_find_matched__images_of_few_groups_say_nothing(tmp_path: Path) -> None:
    write_scene_pair(tmp_path, "a", 20)
    manifest = Tree(tmp_path).scan()
    group = manifest.frame["label"].astype(str) + "_" + (manifest.frame.index % 4).astype(str)
    manifest = Manifest(manifest.frame.assign(group=group), tmp_path)
    (match,) = find_matched(manifest)
    assert match.why == "cannot be told: 4 groups in a class, 5 are needed"


def test_find_matched__passes_over_what_is_broken_or_of_one_class(tmp_path: Path) -> None:
    write_scene_pair(tmp_path, "a", 20)
    write_scenes(tmp_path / "b/0_real", 20)
    (tmp_path / "a/0_real/003_real.png").write_bytes(b"no image")
    assert judged(tmp_path).why.startswith("cannot be told: only 19 images")


def test_find_matched__looks_at_the_same_images_in_any_order(tmp_path: Path) -> None:
    write_scene_pair(tmp_path, "a", 25, shade=20)
    manifest = Tree(tmp_path).scan()
    shuffled = manifest.frame.sample(frac=1, random_state=0).reset_index(drop=True)
    expected = find_matched(manifest, most=22)
    assert find_matched(Manifest(shuffled, tmp_path), most=22) == expected
    assert find_matched(manifest, most=22, seed=1) != expected


def test_content_auc__compares_within_folds() -> None:
    """By scikit-learn's AUC of each fold, weighted by its pairs of images."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 40)
    content = rng.normal(size=(80, 6)) + label[:, None] * 0.4
    group = np.array([f"g{number // 2}" for number in range(80)])
    right, pairs = 0.0, 0
    for repeat in range(5):
        folds = GroupKFold(5, shuffle=True, random_state=3 + repeat)
        for train, test in folds.split(content, groups=group):
            scale = StandardScaler().fit(content[train])
            head = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            head.fit(scale.transform(content[train]), label[train])
            score = head.decision_function(scale.transform(content[test]))
            of_fold = int(np.prod(np.bincount(label[test])))
            right += roc_auc_score(label[test], score) * of_fold
            pairs += of_fold

    auc, low, high = content_auc(content, label, group, seed=3)

    assert auc == pytest.approx(right / pairs)
    assert low < auc < high


def test_content_auc__interval_is_of_groups() -> None:
    """As wide as Hanley and McNeil's (1982), and no narrower where each image is there thrice."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 40)
    content = rng.normal(size=(80, 2)) + label[:, None] * 0.5
    auc, low, high = content_auc(content, label, np.arange(80))
    more = (auc / (2 - auc) + 2 * auc**2 / (1 + auc) - 2 * auc**2) * 39
    error = np.sqrt((auc * (1 - auc) + more) / 40**2)

    _, low_of_three, high_of_three = content_auc(
        content.repeat(3, axis=0), label.repeat(3), np.arange(80).repeat(3)
    )

    assert high - low == pytest.approx(2 * 1.645 * error, rel=0.2)
    assert high_of_three - low_of_three == pytest.approx(high - low, rel=0.2)


def test_thumbnail_content__by_numpy() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    found = thumbnail_content(torch.from_numpy(pixels))
    red, green, blue = pixels.reshape(3, -1).astype(float)
    cells = pd.DataFrame(pixels.mean(axis=0)).groupby(np.arange(32) // 8).mean()
    cells = cells.T.groupby(np.arange(32) // 8).mean().T.to_numpy()
    assert_allclose(
        found[:6], [*(c.mean() for c in (red, green, blue)), red.std(), green.std(), blue.std()]
    )
    assert_allclose(
        found[6:9],
        [
            np.corrcoef(red, green)[0, 1],
            np.corrcoef(red, blue)[0, 1],
            np.corrcoef(green, blue)[0, 1],
        ],
    )
    assert_allclose(found[9:], (cells - cells.mean()).ravel(), atol=1e-9)


def test_thumbnail_content__flat_image() -> None:
    found = thumbnail_content(torch.full((3, 50, 70), 90, dtype=torch.uint8))
    assert_allclose(found, [90.0] * 3 + [0.0] * 22)
