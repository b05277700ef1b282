import shutil
from pathlib import Path

import numpy as np
import pytest

from dfl.errors import FeatureError
from dfl.study.run.condition_features import ConditionFeatures
from tests.study.study_examples import PARTS, describe_anew, example, images, write_backbone


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return example(tmp_path, conditions=["none"]).features["none"].folders


def test_matrix__layers_side_by_side_whatever_their_folder(folders: dict[str, Path]) -> None:
    rows = np.array([5, 0, 199])
    found = ConditionFeatures(folders).matrix(["two.pooled", "one.b"], rows)
    expected = [np.load(folders[layer[:3]] / f"{layer}.npy") for layer in ("two.pooled", "one.b")]
    np.testing.assert_array_equal(found, np.hstack(expected)[rows])
    spec = ConditionFeatures(folders).spec(PARTS)
    assert [(layer.name, layer.dim) for layer in spec] == [
        ("one.a", 6),
        ("one.b", 4),
        ("two.pooled", 5),
    ]


def test_origin__backbones_and_layers_that_are_used(folders: dict[str, Path]) -> None:
    backbones, preprocess, execution = ConditionFeatures(folders).origin(["one.b"])
    recipe = {"class_path": "dfl.backbones.X", "init_args": {"layers": ["b"]}}
    assert backbones == {"one": recipe}
    assert preprocess == {"is": "none"}
    assert execution == {"precision": "bf16-mixed", "engine": "eager"}
    describe_anew(folders["two"], "init_args", "x")
    assert ConditionFeatures(folders).origin(PARTS) == (None, None, None)


def test_stores__rows_must_be_the_same(folders: dict[str, Path]) -> None:
    shutil.rmtree(folders["two"])
    write_backbone(folders["two"], "two", "none", images().iloc[::-1].reset_index(drop=True))
    with pytest.raises(FeatureError, match=r"has other rows than .*one; delete both"):
        ConditionFeatures(folders).matrix(PARTS, np.array([0]))


def test_fingerprints__of_one_backbone_before_the_others_are_there(
    folders: dict[str, Path],
) -> None:
    expected = ConditionFeatures(folders).fingerprints(["one.a"])
    shutil.rmtree(folders["two"])
    conditions = ConditionFeatures(folders)
    assert conditions.fingerprints(["one.a"]) == expected
    with pytest.raises(FeatureError):
        conditions.fingerprints(["two.pooled"])


def test_fingerprints__of_images_condition_and_layer(tmp_path: Path) -> None:
    conditions = example(tmp_path).features
    found = [
        str(f) for v in conditions.values() for layer in PARTS for f in v.fingerprints([layer])
    ]
    assert len(set(found)) == 6
