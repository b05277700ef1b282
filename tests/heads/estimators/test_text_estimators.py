import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from dfl.errors import HeadError
from dfl.heads.estimators.text_estimators import LearnedText, TextSimilarity, prototype_loss
from dfl.heads.storage.head_folder import load_head, save_head
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.types import FeatureLayer
from tests.heads.text_examples import (
    FAKE_PROMPTS,
    REAL_PROMPTS,
    SCALE,
    images,
    stand_in,
    vector_of,
)

WIDTH = 6
TEXTS = (REAL_PROMPTS, FAKE_PROMPTS, "clip_vit_b16")


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    stand_in(monkeypatch, WIDTH)


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def averaged(prompts):
    return np.mean([vector_of(text, WIDTH) for text in prompts], axis=0)


def test_zero_shot__is_the_difference_of_cosines():
    features, label = images(WIDTH)

    head = TextSimilarity(*TEXTS).fit(features, label)

    real, fake = averaged(REAL_PROMPTS), averaged(FAKE_PROMPTS)
    expected = [SCALE * (cosine(x, fake) - cosine(x, real)) for x in features]
    np.testing.assert_allclose(head.decision_function(features), expected, atol=1e-5)
    assert head.predict(features).tolist() == [int(score > 0) for score in expected]


def test_zero_shot__max_takes_the_most_similar_prompt():
    features, label = images(WIDTH)

    head = TextSimilarity(*TEXTS, pool="max").fit(features, label)

    def nearest(x, prompts):
        return max(cosine(x, vector_of(text, WIDTH)) for text in prompts)

    expected = [SCALE * (nearest(x, FAKE_PROMPTS) - nearest(x, REAL_PROMPTS)) for x in features]
    np.testing.assert_allclose(head.decision_function(features), expected, atol=1e-5)


def test_zero_shot__learns_nothing_from_the_images():
    features, label = images(WIDTH)
    other, _ = images(WIDTH, seed=1)

    first = TextSimilarity(*TEXTS).fit(features, label).decision_function(other)
    second = TextSimilarity(*TEXTS).fit(other[:3]).decision_function(other)

    np.testing.assert_array_equal(first, second)


def test_score__does_not_follow_the_length_of_a_feature():
    features, label = images(WIDTH)
    head = LearnedText(*TEXTS).fit(features, label)

    score = head.decision_function(features)

    np.testing.assert_allclose(head.decision_function(8 * features), score, rtol=1e-6)
    assert head.decision_function(np.zeros((1, WIDTH))).tolist() == [0.0]


def test_learned__is_where_the_gradient_ends():
    features, label = images(WIDTH)

    head = LearnedText(*TEXTS, penalty=0.3).fit(features, label)

    unit = features.astype(float) / np.linalg.norm(features.astype(float), axis=1, keepdims=True)
    learnt = np.vstack([head.real_vectors_, head.fake_vectors_])
    args = (unit, label, head.start_, SCALE, 0.3)
    loss, gradient = prototype_loss(learnt.ravel(), *args)
    assert np.abs(gradient).max() < 1e-5
    assert loss < prototype_loss(head.start_.ravel(), *args)[0] - 0.05
    np.testing.assert_allclose(np.linalg.norm(learnt, axis=1), 1)


def test_learned__separates_as_a_plane_through_the_origin_does():
    features, label = images(WIDTH, count=400)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    plain = LogisticRegression(C=1e4, fit_intercept=False).fit(unit, label)

    head = LearnedText(*TEXTS, penalty=0.0).fit(features, label)

    # w_fake - w_real is a plane's normal; its length, at most 2 * SCALE, does not bind here
    expected = plain.decision_function(unit)
    np.testing.assert_allclose(head.decision_function(features), expected, atol=0.01)


def test_learned__stays_with_the_texts_under_a_large_penalty():
    features, label = images(WIDTH)
    zero_shot = TextSimilarity(*TEXTS).fit(features, label).decision_function(features)

    held = LearnedText(*TEXTS, penalty=1e6).fit(features, label).decision_function(features)
    free = LearnedText(*TEXTS, penalty=0.01).fit(features, label).decision_function(features)

    np.testing.assert_allclose(held, zero_shot, atol=1e-3)
    assert np.abs(free - zero_shot).max() > 1


def test_learned__without_steps_compares_with_averages():
    features, label = images(WIDTH)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)

    head = LearnedText(*TEXTS, image_weight=0.25, max_iter=0).fit(features, label)

    expected = []
    for side, prompts in ((0, REAL_PROMPTS), (1, FAKE_PROMPTS)):
        text, image = averaged(prompts), unit[label == side].mean(axis=0)
        mixed = 0.75 * text / np.linalg.norm(text) + 0.25 * image / np.linalg.norm(image)
        expected.append(mixed / np.linalg.norm(mixed))
    np.testing.assert_allclose(head.start_, expected, atol=1e-6)
    np.testing.assert_array_equal(head.start_, np.vstack([head.real_vectors_, head.fake_vectors_]))


def test_learned__without_text_is_the_nearest_mean():
    features, label = images(WIDTH)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = [unit[label == side].mean(axis=0) for side in (0, 1)]

    head = LearnedText(*TEXTS, image_weight=1.0, max_iter=0).fit(features, label)

    nearer = [cosine(x, means[1]) > cosine(x, means[0]) for x in features]
    assert head.predict(features).tolist() == [int(is_fake) for is_fake in nearer]


def test_learned__fits_twice_to_the_same():
    features, label = images(WIDTH)

    first = LearnedText(*TEXTS).fit(features, label)
    second = clone(first).fit(features, label)

    assert (
        first.decision_function(features).tobytes() == second.decision_function(features).tobytes()
    )
    assert first.get_params() == second.get_params()


@pytest.mark.parametrize("estimator", [TextSimilarity(*TEXTS, pool="max"), LearnedText(*TEXTS)])
def test_stored__scores_are_equal_bit_for_bit(estimator, tmp_path):
    features, label = images(WIDTH)
    spec = (FeatureLayer("clip.head", WIDTH, "a" * 64),)
    head = SklearnHead(Pipeline([("estimator", estimator)]), spec).fit(features, label)

    save_head(head, tmp_path / "head")
    loaded = load_head(tmp_path / "head")

    assert loaded.score(features).tobytes() == head.score(features).tobytes()
    assert loaded.pipeline[-1].real_prompts == REAL_PROMPTS


@pytest.mark.slow
def test_score__needs_no_torch():
    code = (
        "import sys, numpy as np; from dfl.heads.estimators.text_estimators import LearnedText; "
        "head = LearnedText(['a'], ['b'], 'm'); head.n_features_in_ = 2; head.logit_scale_ = 1.0; "
        "head.real_vectors_, head.fake_vectors_ = np.eye(2)[:1], np.eye(2)[1:]; "
        "print(head.decision_function(np.eye(2)).tolist(), 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[-1.0, 1.0] False"


@pytest.mark.parametrize("kind", [TextSimilarity, LearnedText])
def test_fit__features_of_another_width(kind):
    features, label = images(WIDTH + 2)

    with pytest.raises(
        HeadError,
        match=r"8 columns of features for texts of 6 \(clip_vit_b16\); choose the layer head .*"
        r"--layers '\[clip\.head\]'",
    ):
        kind(*TEXTS).fit(features, label)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (TextSimilarity(*TEXTS, pool="sum"), "pool 'sum': choose mean or max"),
        (TextSimilarity([], FAKE_PROMPTS, "m"), r"real_prompts \[\]: give a list of texts"),
        (TextSimilarity(REAL_PROMPTS, "fake", "m"), "fake_prompts 'fake': give a list"),
        (
            LearnedText(*TEXTS, penalty=-1.0),
            "penalty -1.0: give a finite number that is at least 0",
        ),
        (LearnedText(*TEXTS, penalty=float("nan")), "penalty nan: give a finite number"),
        (LearnedText(*TEXTS, image_weight=1.5), r"image_weight 1.5: give a number in \[0, 1\]"),
        (LearnedText(*TEXTS, max_iter=-1), "max_iter -1: give a number that is at least 0"),
    ],
)
def test_fit__options_out_of_range(estimator, message):
    with pytest.raises(HeadError, match=message):
        estimator.fit(*images(WIDTH))


def test_fit__learning_needs_both_classes():
    features, label = images(WIDTH)

    with pytest.raises(HeadError, match="0 for real and 1 for fake, one an image, both of them"):
        LearnedText(*TEXTS).fit(features[label == 0], label[label == 0])
    with pytest.raises(HeadError, match="0 for real and 1 for fake, one an image, both of them"):
        LearnedText(*TEXTS).fit(features)


def test_fit__says_when_it_stopped_early(caplog):
    spec = (FeatureLayer("clip.head", WIDTH, "a" * 64),)
    head = SklearnHead(Pipeline([("estimator", LearnedText(*TEXTS, max_iter=1))]), spec)

    head.fit(*images(WIDTH))

    assert "LearnedText did not converge; raise max_iter" in caplog.text


def test_score__features_of_another_width():
    head = TextSimilarity(*TEXTS).fit(*images(WIDTH))

    with pytest.raises(ValueError, match=r"8 features, but TextSimilarity is expecting 6"):
        head.decision_function(np.ones((2, 8)))


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
