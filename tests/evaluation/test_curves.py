import numpy as np
import pytest
from sklearn.metrics import roc_curve

from dfl.evaluation import roc_points


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e3])
def test_roc_points__equal_sklearn(scale):
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 200)
    score = np.round(rng.normal(size=200) + label, 1) * scale
    fpr, tpr = roc_points(score, label)
    expected_fpr, expected_tpr, _ = roc_curve(label, score, drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected_fpr, atol=1e-6)
    np.testing.assert_allclose(tpr, expected_tpr, atol=1e-6)
