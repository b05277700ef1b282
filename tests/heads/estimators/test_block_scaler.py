import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from dfl.errors import HeadError
from dfl.heads import BlockScaler
from dfl.heads.estimators import logistic_regression, scaled_blocks
from dfl.heads.estimators.reductions import reduced
from dfl.heads.out_of_core.fit import fit_streamed, is_streamed
from dfl.heads.out_of_core.stream import Stream
from dfl.heads.storage.head_folder import load_head, save_head
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.types import FeatureLayer
from tests.heads.out_of_core.test_fit import ArrayRows

DIMS = {  # not in the order of the blocks
    "clip.block7.cls": 3,
    "clip.pooled": 2,
    "clip.block5.cls": 3,
    "clip.block5.mean": 3,
    "clip.block10.cls": 3,
    "dino.block5.cls": 4,
}
SPEC = tuple(FeatureLayer(name, dim, "a" * 64) for name, dim in DIMS.items())
START = dict(zip(DIMS, np.cumsum([0, *DIMS.values()]), strict=False))


@pytest.fixture
def features() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(80, 18)) * np.logspace(-1, 1, 18) + 3).astype(np.float32)


def own(features: np.ndarray, name: str) -> np.ndarray:
    return features[:, START[name] : START[name] + DIMS[name]].astype(np.float64)


def differences(features: np.ndarray) -> list[np.ndarray]:
    five, seven, ten = (own(features, f"clip.block{i}.cls") for i in (5, 7, 10))
    return [seven - five, ten - seven]


@pytest.mark.parametrize("mode", ["none", "added", "alone"])
def test_transform__by_numpy(features: np.ndarray, mode: str) -> None:
    wholes = [own(features, name) for name in DIMS]
    alone = ["clip.pooled", "clip.block5.mean", "dino.block5.cls"]
    expected = {
        "none": wholes,
        "added": [*wholes, *differences(features)],
        "alone": [*(own(features, name) for name in alone), *differences(features)],
    }[mode]
    mean_width = np.mean([each.shape[1] for each in expected])
    standard = [
        StandardScaler().fit_transform(each) / np.sqrt(each.shape[1] / mean_width)
        for each in expected
    ]

    scaler = BlockScaler(differences=mode)
    found = scaler.fit_transform(features, spec=SPEC)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.hstack(standard), atol=1e-5)


def test_transform__every_layer_weighs_alike(features: np.ndarray) -> None:
    found = BlockScaler().fit_transform(features, spec=SPEC)

    for name in DIMS:
        assert np.square(own(found, name)).sum(1).mean() == pytest.approx(3.0, rel=1e-4)


def test_transform__of_layers_of_one_width_is_plain_scaling(features: np.ndarray) -> None:
    spec = tuple(layer for layer in SPEC if layer.dim == 3)

    found = BlockScaler().fit_transform(features[:, :12], spec=spec)

    np.testing.assert_allclose(found, StandardScaler().fit_transform(features[:, :12]), atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "names", "message"),
    [
        ("both", ["clip.pooled"], "differences is 'both': choose none, added or alone"),
        ("alone", ["clip.pooled", "clip.block5.cls"], "no two blocks of one backbone and kind amo"),
        ("none", [], "features of 5 columns, and layers of 0: BlockScaler stands before all other"),
    ],
)
def test_fit__layers_that_do_not_fit(mode: str, names: list[str], message: str) -> None:
    spec = tuple(layer for layer in SPEC if layer.name in names)

    with pytest.raises(HeadError, match=message):
        BlockScaler(differences=mode).fit(np.zeros((4, 5)), spec=spec)


def test_fit__blocks_of_several_widths() -> None:
    spec = (FeatureLayer("net.block1.mean", 2, ""), FeatureLayer("net.block2.mean", 3, ""))

    with pytest.raises(HeadError, match=r"net.block1.mean and net.block2.mean differ in width"):
        BlockScaler(differences="added").fit(np.zeros((4, 5)), spec=spec)


def test_head__streamed_and_stored(features: np.ndarray, tmp_path) -> None:
    label = (np.arange(80) % 2).astype(np.int64)
    features[label == 1, :6] += 1
    pipeline = reduced(logistic_regression(C=0.01), scaled_blocks("added"))
    in_memory = SklearnHead(pipeline, SPEC).fit(features, label)
    assert is_streamed(pipeline, 80, 18, out_of_core="always")

    rows = ArrayRows(features)
    streamed = SklearnHead(pipeline, SPEC).fit_streamed(Stream(rows, label), scratch=tmp_path)
    save_head(streamed, tmp_path / "head")

    score = load_head(tmp_path / "head").score(features)
    np.testing.assert_allclose(score, in_memory.score(features), atol=1e-3)
    with pytest.raises(HeadError, match="no two blocks of one backbone and kind among no layers"):
        fit_streamed(pipeline, Stream(rows, label), scratch=tmp_path)
