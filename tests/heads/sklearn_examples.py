"""Small features, all estimators and a bottleneck, for the tests of the sklearn heads."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
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

WRAPPED: dict[str, Callable[[], Pipeline]] = {
    "balanced": lambda: estimators.balanced(estimators.logistic_regression()),
    "balanced_svm": lambda: estimators.balanced(estimators.linear_svm()),
    "balanced_bayes": lambda: estimators.balanced(estimators.naive_bayes()),
    "balanced_forest": lambda: estimators.balanced(estimators.random_forest(n_estimators=5)),
    "one_per_family": lambda: estimators.one_per_family(estimators.lda()),
    "one_per_family_balanced": lambda: estimators.one_per_family(
        estimators.balanced(estimators.logistic_regression())
    ),
    "one_per_source": lambda: estimators.one_per_family(estimators.naive_bayes(), by="source"),
    "one_per_family_forest": lambda: estimators.one_per_family(
        estimators.random_forest(n_estimators=5)
    ),
    "prototypes": lambda: estimators.prototypes(by="generator", pool="max"),
    "without": lambda: estimators.without(
        estimators.balanced(estimators.logistic_regression()), ["vae"]
    ),
    "without_forest": lambda: estimators.without(
        estimators.random_forest(n_estimators=5), ["gan", "vae"]
    ),
}
"""Heads that learn of what kind images are."""


def images(
    count: int = 120, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Overlapping classes in columns of very different scales."""
    rng = np.random.default_rng(seed)
    label = (np.arange(count) % 2).astype(np.int64)
    features = rng.normal(size=(count, DIM)) + 0.7 * label[:, None] * (np.arange(DIM) < 4)
    return (features * np.logspace(-2, 2, DIM)).astype(np.float32), label


def provenance(label: npt.NDArray[np.int64], seed: int = 0) -> pd.DataFrame:
    """Three unequal families of four generators, and two unequal sources of two datasets."""
    rng = np.random.default_rng(seed)
    fake = label == 1
    generator = rng.choice(["gan1", "gan2", "diffusion", "vae"], len(label), p=[0.1, 0.4, 0.4, 0.1])
    family = np.where(np.char.startswith(generator, "gan"), "gan", generator)
    source = rng.choice(["web", "camera"], len(label), p=[0.8, 0.2])
    return pd.DataFrame(
        {
            "generator": np.where(fake, generator, "real"),
            "family": np.where(fake, family, ""),
            "source": np.where(fake, "", source),
            "dataset": rng.choice(["one", "two"], len(label), p=[0.3, 0.7]),
        }
    )


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
