from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import dfl.heads.modules.bottleneck_training
import dfl.heads.modules.training
from dfl.errors import HeadError
from dfl.heads.estimators import lda, random_forest
from dfl.heads.estimators.autoencoder_step import Autoencoder
from dfl.heads.estimators.reductions import autoencoder, reduced
from dfl.heads.storage.head_folder import load_head, save_head
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.heads.storage.skops_file import dump_pipeline, load_pipeline
from tests.heads.sklearn_examples import SPEC, images

SMALL = {"code_dim": 3, "hidden_dims": (8,), "epochs": 3}
VARIANTS = {
    "plain": {},
    "linear": {"hidden_dims": ()},
    "deep": {"hidden_dims": (10, 8)},
    "tied": {"tied": True},
    "denoising": {"noise": 0.5},
    "variational": {"kl_weight": 0.5},
    "joint": {"classify_weight": 1.0},
    "all": {"tied": True, "noise": 0.5, "kl_weight": 0.5, "classify_weight": 1.0},
}


def arrays(fitted: Autoencoder) -> list[np.ndarray]:
    return [fitted.mean_, fitted.variance_, *fitted.weights_, *fitted.biases_]


def test_fit__linear_and_tied_reaches_pca() -> None:
    """Without hidden layers the optimum is the span of the principal components (Baldi 1989)."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(300, 4)) * [4, 3, 2, 1] @ rng.normal(size=(4, 12))).astype("f")
    features += rng.normal(size=features.shape) * 0.5
    standard = StandardScaler().fit_transform(features)
    pca = PCA(3).fit(standard)

    fitted = Autoencoder(3, (), tied=True, epochs=60, learning_rate=0.02, weight_decay=0.0)
    fitted.fit(features)

    optimum = 1 - pca.explained_variance_ratio_.sum()
    assert fitted.reconstruction_error_ == pytest.approx(optimum, rel=0.01)
    # the code spans the components: regression on it gives them back
    code, components = fitted.transform(features), pca.transform(standard)
    design = np.c_[code, np.ones(len(code))]
    left = components - design @ np.linalg.lstsq(design, components, rcond=None)[0]
    assert left.var() < 0.01 * components.var()


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_transform__equals_torch(variant: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    train = dfl.heads.modules.bottleneck_training.train_bottleneck
    monkeypatch.setattr(
        dfl.heads.modules.bottleneck_training,
        "train_bottleneck",
        lambda *args, **kwargs: models.append(train(*args, **kwargs)) or models[0],
    )
    features, label = images()
    fitted = Autoencoder(**SMALL | variant).fit(features, label)
    other, _ = images(seed=1)
    with torch.no_grad():
        expected = models[0].encode(torch.from_numpy(other)).numpy()

    code = fitted.transform(other)

    np.testing.assert_allclose(code, expected, rtol=1e-5, atol=1e-5)
    assert code.dtype == np.float32
    assert fitted.n_features_in_ == 12


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_fit__same_seed_same_arrays(variant: dict) -> None:
    features, label = images()
    torch.manual_seed(0)
    first = Autoencoder(**SMALL | variant).fit(features, label)
    torch.manual_seed(1)
    same = clone(first).fit(features, label)
    other = clone(first).set_params(seed=1).fit(features, label)

    assert all((a == b).all() for a, b in zip(arrays(first), arrays(same), strict=True))
    assert first.reconstruction_error_ == same.reconstruction_error_
    assert (first.weights_[0] != other.weights_[0]).any()


@pytest.mark.parametrize(
    "change",
    [
        {"tied": True},
        {"noise": 0.5},
        {"kl_weight": 0.5},
        {"classify_weight": 1.0},
        {"epochs": 4},
        {"batch_size": 16},
        {"learning_rate": 0.01},
        {"weight_decay": 0.5},
    ],
)
def test_fit__every_setting_matters(change: dict) -> None:
    features, label = images()
    plain = Autoencoder(**SMALL).fit(features, label)
    changed = Autoencoder(**SMALL | change).fit(features, label)

    assert (plain.weights_[0] != changed.weights_[0]).any()


def test_fit__memory_map_is_never_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, label = images(9000)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    tensor, read = dfl.heads.modules.training.tensor, []
    for module in (dfl.heads.modules.training, dfl.heads.modules.bottleneck_training):
        monkeypatch.setattr(
            module, "tensor", lambda rows: (read.append(len(rows)), tensor(rows))[1]
        )

    fitted = Autoencoder(**SMALL, classify_weight=1.0).fit(mapped, label)

    assert max(read) <= 4096
    expected = Autoencoder(**SMALL, classify_weight=1.0).fit(features, label)
    assert all((a == b).all() for a, b in zip(arrays(fitted), arrays(expected), strict=True))
    assert (fitted.transform(mapped) == expected.transform(features)).all()


def test_fit__labels_help_a_narrow_code() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    features = rng.normal(size=(200, 12)).astype(np.float32)
    features[:, :8] = features[:, :1]  # what varies most says nothing of the class
    features[:, -1] = features[:, -1] * 0.3 + 2 * label

    def separation(weight: float) -> float:
        fitted = Autoencoder(1, (), classify_weight=weight, learning_rate=0.02).fit(features, label)
        code = fitted.transform(features)[:, 0]
        return abs(code[label == 1].mean() - code[label == 0].mean()) / code.std()

    assert separation(5.0) > 1.5 > 0.5 > separation(0.0)


def test_fit__constant_columns_and_few_rows() -> None:
    features = np.ones((2, 5), dtype=np.float32)

    fitted = Autoencoder(2, (3,), epochs=1).fit(features)

    assert fitted.reconstruction_error_ == 0
    assert np.isfinite(fitted.transform(features)).all()


def test_fit__does_not_change_its_input() -> None:
    features, _ = images()
    before = features.copy()

    Autoencoder(**SMALL, noise=1.0).fit_transform(features)

    assert (features == before).all()


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_skops__is_equal_after_loading(variant: dict, tmp_path: Path) -> None:
    features, label = images()
    pipeline = Pipeline([("encode", Autoencoder(**SMALL | variant))]).fit(features, label)
    dump_pipeline(pipeline, tmp_path / "a.skops")

    loaded = load_pipeline(tmp_path / "a.skops")

    assert (loaded.transform(features) == pipeline.transform(features)).all()
    assert loaded[0].reconstruction_error_ == pipeline[0].reconstruction_error_
    assert loaded[0].get_params() == pipeline[0].get_params()


@pytest.mark.parametrize("estimator", [lda, lambda: random_forest(n_estimators=5)])
def test_head__in_front_of_an_estimator(estimator, tmp_path: Path) -> None:
    features, label = images()
    pipeline = reduced(estimator(), autoencoder(code_dim=3, hidden_dims=[8], epochs=3))
    head = SklearnHead(pipeline, SPEC).fit(features, label)
    save_head(head, tmp_path / "head")

    assert list(head.pipeline.named_steps) == ["encode", "scale", "estimator"]
    np.testing.assert_allclose(head.pipeline[:-1].transform(features).std(0), 1, rtol=1e-4)
    assert (load_head(tmp_path / "head").score(features) == head.score(features)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"code_dim": 0}, "code_dim is 0, must be a whole number of at least 1"),
        ({"code_dim": 2.5}, "code_dim is 2.5, must be a whole number of at least 1"),
        ({"hidden_dims": (8, 0)}, r"hidden_dims is \[8, 0\], each of them must be a whole"),
        ({"hidden_dims": None}, "hidden_dims is None"),
        ({"hidden_dims": 8}, r"hidden_dims is 8, must be a list of widths"),
        ({"noise": -0.1}, "noise is -0.1, must be a number of at least 0"),
        ({"kl_weight": np.nan}, "kl_weight is nan, must be a number of at least 0"),
        ({"classify_weight": -1}, "classify_weight is -1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0}, "learning_rate is 0, must be above 0"),
        ({"weight_decay": "x"}, "weight_decay is 'x'"),
        ({"seed": 1.5}, "seed is 1.5, must be a whole number"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_fit__nonsense(settings: dict, message: str) -> None:
    with pytest.raises(HeadError, match=f"the autoencoder's {message}") as error:
        Autoencoder(**settings).fit(images()[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "classify_weight is 1.0, so the autoencoder needs labels"),
        (np.zeros(3), r"labels of shape \(3,\) for 120 rows"),
        (np.full(120, -1), r"needs a 0 \(real\) or 1 \(fake\) for each"),
    ],
)
def test_fit__labels_that_cannot_be_used(label, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        Autoencoder(classify_weight=1.0).fit(images()[0], label)


def test_fit__diverged() -> None:
    with pytest.raises(HeadError, match="diverged with learning_rate 1e\\+30; lower it"):
        Autoencoder(**SMALL | {"learning_rate": 1e30}).fit(images()[0])


def test_transform__as_sklearn_does() -> None:
    features, _ = images()
    with pytest.raises(NotFittedError):
        Autoencoder().transform(features)
    fitted = Autoencoder(**SMALL).fit(features)
    with pytest.raises(ValueError, match="X has 5 features, but Autoencoder is expecting 12"):
        fitted.transform(features[:, :5])
    with pytest.raises(ValueError, match="contains NaN"):
        fitted.fit(np.where(features > 0, np.nan, features))
