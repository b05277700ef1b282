from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from dfl.errors import HeadError
from dfl.heads.estimators import photograph_distance
from dfl.heads.estimators.photograph_distance import PhotographDistance
from dfl.heads.storage.head_folder import load_head, save_head
from dfl.heads.storage.sklearn_head import SklearnHead
from tests.heads.sklearn_examples import SPEC, images, provenance


def photographs(count: int, dim: int = 10, seed: int = 0) -> np.ndarray:
    """Correlated columns of very different scales."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(dim, dim))
    return rng.normal(size=(count, dim)) @ mixing * np.logspace(-2, 2, dim) + 3


def fitted(real: np.ndarray, **options) -> PhotographDistance:
    fakes = photographs(5, real.shape[1], seed=9) * 100
    label = np.repeat([0, 1], [len(real), 5])
    return PhotographDistance(**options).fit(np.vstack([real, fakes]), label)


@pytest.mark.parametrize("count", [200, 12])
def test_decision_function__by_scikit_learn(count: int) -> None:
    """With more images than columns, and with fewer."""
    real, others = photographs(count, 20), photographs(30, 20, seed=2)
    head = fitted(real)
    mean, scale = real.mean(axis=0), real.std(axis=0)
    shrunk = LedoitWolf(assume_centered=True).fit((real - mean) / scale)
    expected = np.sqrt(shrunk.mahalanobis((others - mean) / scale))

    assert_allclose(head.decision_function(others) + head.threshold_, expected, rtol=1e-8)


def test_fit__does_not_look_at_fakes() -> None:
    real, others = photographs(60), photographs(20, seed=2)
    label = np.repeat([0, 1], [60, 20])
    first = PhotographDistance().fit(np.vstack([real, others]), label)
    second = PhotographDistance().fit(np.vstack([real, -others]), label)
    assert first.decision_function(others).tobytes() == second.decision_function(others).tobytes()


def test_fit__the_quantile_holds_for_other_photographs() -> None:
    """That of the photographs' own distances would not, by far, with as many columns as images."""
    real, others = photographs(300, 100), photographs(2000, 100, seed=2)
    for quantile in (0.8, 0.95):
        head = fitted(real, quantile=quantile)
        assert (head.decision_function(others) <= 0).mean() == pytest.approx(quantile, abs=0.04)
        assert (head.decision_function(real) <= 0).mean() > 0.98


def test_fit__leaves_out_whole_sources() -> None:
    real = np.vstack([photographs(60), photographs(60, seed=3) + np.logspace(-2, 2, 10) * 5])
    features, label = np.vstack([real, real[:1]]), np.repeat([0, 1], [120, 1])
    source = pd.DataFrame({"source": ["camera"] * 60 + ["web"] * 60 + [""], "family": "gan"})
    by_source = PhotographDistance().fit(features, label, source)
    at_random = PhotographDistance().fit(features, label, source.assign(source="web"))
    assert by_source.threshold_ > 2 * at_random.threshold_
    assert_allclose(by_source.precision_, at_random.precision_)


def test_predict__what_is_unlike_photographs_is_fake() -> None:
    real, same = photographs(200), photographs(200, seed=2)
    unlike = np.random.default_rng(5).permuted(same, axis=0)  # columns that have nothing in common
    pipeline = photograph_distance(quantile=0.9).fit(
        np.vstack([real, unlike[:5]]), np.repeat([0, 1], [200, 5])
    )
    score = pipeline.decision_function(np.vstack([same, unlike]))
    assert roc_auc_score(np.repeat([0, 1], 200), score) > 0.8
    assert (pipeline.predict(same) == 0).mean() == pytest.approx(0.9, abs=0.06)


def test_fit__constant_columns() -> None:
    real = np.hstack([photographs(30), np.full((30, 1), 7.0)])
    head = fitted(real)
    other = real.copy()
    other[:, -1] = 8
    assert np.isfinite(head.decision_function(real)).all()
    assert (head.decision_function(other) > head.decision_function(real)).all()


def test_store__scores_bit_for_bit(tmp_path: Path) -> None:
    features, label = images(200)
    head = SklearnHead(photograph_distance(), SPEC).fit(features, label, provenance(label))
    save_head(head, tmp_path / "head")
    assert load_head(tmp_path / "head").score(features).tobytes() == head.score(features).tobytes()


@pytest.mark.parametrize(
    ("count", "quantile", "said"),
    [(9, 0.9, "has 9 photographs to learn from, and needs 10"), (30, 1.0, "quantile is 1.0")],
)
def test_fit__refuses(count: int, quantile: float, said: str) -> None:
    with pytest.raises(HeadError, match=said):
        fitted(photographs(count), quantile=quantile)
