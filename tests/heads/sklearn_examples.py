"""Small features, all estimators and a bottleneck, for the tests of the sklearn heads."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

from dfl.heads import estimators
from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.heads.estimators.reductions import pca
from dfl.types import FeatureLayer

SPEC = (FeatureLayer("clip.pooled", 8, "a" * 64), FeatureLayer("dino.pooled", 4, "b" * 64))
DIM = 12

ESTIMATORS: dict[str, Callable[[], Pipeline]] = {
    "linear_svm": estimators.linear_svm,
    "rbf_svm": estimators.rbf_svm,
    "linear_probe": estimators.linear_probe,
    "lda": estimators.lda,
    "lda_plain": lambda: estimators.lda(shrinkage=None),
    "logistic_regression": estimators.logistic_regression,
    "decision_tree": estimators.decision_tree,
    "random_forest": lambda: estimators.random_forest(n_estimators=10),
    "knn": estimators.knn,
    "naive_bayes": estimators.naive_bayes,
    "gradient_boosting": lambda: estimators.gradient_boosting(max_iter=10, max_features=1.0),
}


def images(
    count: int = 120, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Overlapping classes in columns of very different scales."""
    rng = np.random.default_rng(seed)
    label = (np.arange(count) % 2).astype(np.int64)
    features = rng.normal(size=(count, DIM)) + 0.7 * label[:, None] * (np.arange(DIM) < 4)
    return (features * np.logspace(-2, 2, DIM)).astype(np.float32), label


def encoder(seed: int = 0) -> BottleneckEncoder:
    rng = np.random.default_rng(seed)
    dims = [DIM, 6, 3]
    return BottleneckEncoder(
        mean=rng.normal(size=DIM).astype(np.float32),
        variance=(np.logspace(-2, 2, DIM) ** 2).astype(np.float32),
        weights=[rng.normal(size=(out, width)).astype(np.float32) for width, out in pairwise(dims)],
        biases=[rng.normal(size=out).astype(np.float32) for out in dims[1:]],
        features=[
            {"name": layer.name, "dim": layer.dim, "fingerprint": layer.fingerprint}
            for layer in SPEC
        ],
    )


REDUCTIONS: dict[str, Callable[[], Pipeline | None]] = {
    "none": lambda: None,
    "pca": lambda: pca(n_components=3),
    "bottleneck": lambda: Pipeline([("encode", encoder())]),
}
