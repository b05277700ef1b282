"""Sklearn heads and reductions as typed functions that a config names.

Torch is needed to fit an autoencoder, a linear probe or texts and to read a bottleneck's
checkpoint, never to score.
"""

from dfl.heads.estimators.classifiers import (
    balanced,
    decision_tree,
    gradient_boosting,
    knn,
    lda,
    linear_probe,
    linear_svm,
    logistic_regression,
    naive_bayes,
    one_per_family,
    prototypes,
    random_forest,
    rbf_svm,
    rine,
    shuffled,
    without,
)
from dfl.heads.estimators.photograph_distance import photograph_distance
from dfl.heads.estimators.reductions import autoencoder, bottleneck, pca, scaled_blocks
from dfl.heads.estimators.text_classifiers import learned_text, zero_shot

__all__ = [
    "autoencoder",
    "balanced",
    "bottleneck",
    "decision_tree",
    "gradient_boosting",
    "knn",
    "lda",
    "learned_text",
    "linear_probe",
    "linear_svm",
    "logistic_regression",
    "naive_bayes",
    "one_per_family",
    "pca",
    "photograph_distance",
    "prototypes",
    "random_forest",
    "rbf_svm",
    "rine",
    "scaled_blocks",
    "shuffled",
    "without",
    "zero_shot",
]
