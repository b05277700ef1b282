from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from dfl.errors import HeadError
from dfl.heads.estimators import decision_tree, rbf_svm
from dfl.heads.estimators.autoencoder_step import Autoencoder
from dfl.heads.estimators.reductions import autoencoder, bottleneck, pca, reduced
from dfl.heads.storage.sklearn_head import SklearnHead
from tests.heads.estimators.test_encoder_step import checkpoint_of, trained
from tests.heads.sklearn_examples import SPEC, images


def test_pca__equals_plain_sklearn() -> None:
    features, _ = images()
    scaled = StandardScaler().fit_transform(features)
    expected = PCA(4, random_state=0).fit_transform(scaled)

    np.testing.assert_array_equal(pca(n_components=4).fit_transform(features), expected)


@pytest.mark.parametrize(("given", "kept"), [(4.0, 4), (4, 4), (1.0, 1), (0.9, 0.9)])
def test_pca__tells_a_count_from_a_fraction(given: float, kept: float) -> None:
    components = pca(n_components=given)[-1].n_components

    assert components == kept
    assert type(components) is type(kept)


@pytest.mark.parametrize(("rows", "most"), [(120, 12), (8, 8)])
def test_pca__more_components_than_rows_or_columns(rows: int, most: int) -> None:
    head = SklearnHead(reduced(rbf_svm(), pca(13)), SPEC)

    with pytest.raises(HeadError, match=rf"n_components=13 must be between .+={most} ") as error:
        head.fit(*images(rows))
    assert "\n" not in str(error.value)


def test_autoencoder__hands_on_every_setting() -> None:
    changed = {
        "code_dim": 5,
        "hidden_dims": [7],
        "tied": True,
        "noise": 0.1,
        "kl_weight": 0.2,
        "classify_weight": 0.3,
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.5,
        "weight_decay": 0.6,
        "seed": 9,
    }
    assert autoencoder(**changed)[0].get_params() == changed
    usual = Autoencoder().get_params() | {"hidden_dims": [256]}
    assert autoencoder()[0].get_params() == usual
    assert [name for name, _ in autoencoder(hidden_dims=[]).steps] == ["encode", "scale"]
    assert autoencoder(hidden_dims=[])[0].hidden_dims == []


def test_reduced__takes_the_place_of_the_scaling() -> None:
    steps = [name for name, _ in reduced(rbf_svm(), pca(4)).steps]

    assert steps == ["scale", "pca", "estimator"]
    assert [name for name, _ in reduced(decision_tree(), pca(4)).steps] == steps


def test_reduced__without_a_reduction() -> None:
    pipeline = rbf_svm()

    assert reduced(pipeline, None) is pipeline


def test_bottleneck__is_scaled_for_the_estimator(tmp_path: Path) -> None:
    features, label = images()
    pipeline = reduced(rbf_svm(), bottleneck(checkpoint_of(trained(), tmp_path / "b.ckpt")))

    pipeline.fit(features, label)

    assert list(pipeline.named_steps) == ["encode", "scale", "estimator"]
    np.testing.assert_allclose(pipeline[:-1].transform(features).std(0), 1, rtol=1e-4)
