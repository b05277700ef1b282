import numpy as np
import pytest
from scipy.optimize import approx_fprime

from dfl.heads.modules.prototype_loss import prototype_loss
from tests.heads.text_examples import SCALE, images, vector_of

WIDTH = 6


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_loss__gradient_equals_finite_differences(penalty):
    rng = np.random.default_rng(0)
    features, label = images(WIDTH, count=20)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    start = np.stack([vector_of("a photo", WIDTH), vector_of("a render", WIDTH)]).astype(float)
    args = (unit.astype(float), label, start, SCALE, penalty)
    flat = rng.normal(size=2 * WIDTH)

    _, gradient = prototype_loss(flat, *args)

    numeric = approx_fprime(flat, lambda point: prototype_loss(point, *args)[0], 1e-7)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-6)


def test_loss__is_the_cross_entropy_and_the_distance():
    features, label = images(WIDTH, count=20)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    start = np.stack([vector_of("a photo", WIDTH), vector_of("a render", WIDTH)]).astype(float)
    vectors = np.random.default_rng(1).normal(size=(2, WIDTH))

    loss, _ = prototype_loss(vectors.ravel(), unit.astype(float), label, start, SCALE, 0.7)

    logits = SCALE * np.array([[cosine(x, w) for w in vectors] for x in features])
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    distance = sum(1 - cosine(w, t) for w, t in zip(vectors, start, strict=True))
    expected = -np.log(prob[np.arange(20), label]).mean() + 0.7 * distance
    assert loss == pytest.approx(expected, rel=1e-5)
