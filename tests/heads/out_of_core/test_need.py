"""Estimates of memory, by hand for small pipelines."""

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from dfl.heads.estimators import lda, linear_svm, naive_bayes, rbf_svm
from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.heads.estimators.reductions import pca, reduced
from dfl.heads.out_of_core.need import need_at_once, need_of_passes

ENCODER = BottleneckEncoder(
    np.zeros(200), np.ones(200), [np.zeros((7, 200))], [np.zeros(7)], features=[]
)


@pytest.mark.parametrize(
    ("pipeline", "passes", "covariance"),
    [
        (linear_svm(), 6 * 8 * 200**2, 0),
        (naive_bayes(), 6 * 8 * 200**2, 0),
        (lda(), 9 * 8 * 200**2, 3 * 8 * 200**2),
        (lda(shrinkage=None), 6 * 8 * 200**2, 0),
        (reduced(lda(), pca(20)), 6 * 8 * 200**2 + 9 * 8 * 20**2, 3 * 8 * 20**2),
        (reduced(lda(), pca(0.9)), 6 * 8 * 200**2 + 9 * 8 * 50**2, 3 * 8 * 50**2),
        (Pipeline([("b", ENCODER), *linear_svm().steps]), 6 * 8 * 7**2, 0),
        (rbf_svm(), 6 * 8 * (200**2 + 50**2) + 2 * 8 * 50 * 200, 0),
        (rbf_svm(gamma=0.1), 6 * 8 * 50**2 + 2 * 8 * 50 * 200, 0),
    ],
)
def test_need__of_50_rows_of_200_columns(pipeline: Pipeline, passes: int, covariance: int) -> None:
    assert need_of_passes(pipeline, 50, 200) == passes
    assert need_at_once(pipeline, 50, 200) == 4 * 4 * 50 * 200 + covariance
