import logging
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from dfl.errors import HeadError
from dfl.heads.estimators import knn, logistic_regression, naive_bayes, rbf_svm
from dfl.heads.estimators.margin import PROBABILITY_EPS
from dfl.heads.estimators.reductions import reduced
from dfl.heads.storage.sklearn_head import SklearnHead
from tests.heads.sklearn_examples import ESTIMATORS, REDUCTIONS, SPEC, images


def fitted(name: str, reduction: str = "none") -> SklearnHead:
    pipeline = reduced(ESTIMATORS[name](), REDUCTIONS[reduction]())
    return SklearnHead(pipeline, SPEC).fit(*images())


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_score__is_above_0_where_the_estimator_predicts_fake(name: str, reduction: str) -> None:
    head = fitted(name, reduction)
    features, _ = images(400, seed=1)

    score = head.score(features)

    assert score.shape == (400,)
    assert score.dtype == np.float64
    assert np.isfinite(score).all()
    assert ((score > 0) == (head.pipeline.predict(features) == 1)).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_score__is_higher_for_fakes(name: str) -> None:
    features, label = images(400, seed=1)

    score = fitted(name).score(features)

    assert score[label == 1].mean() > score[label == 0].mean()


def test_score__of_probabilities_is_their_log_odds() -> None:
    head = fitted("random_forest")
    features, _ = images(seed=1)
    prob = head.pipeline.predict_proba(features)[:, 1].clip(PROBABILITY_EPS, 1 - PROBABILITY_EPS)

    np.testing.assert_allclose(head.score(features), np.log(prob / (1 - prob)), atol=1e-9)


def test_score__a_tied_vote_is_real() -> None:
    features, label = images()
    head = SklearnHead(knn(n_neighbors=2), SPEC).fit(features, label)

    score = head.score(features)

    assert (score == 0).any()
    assert (head.pipeline.predict(features)[score == 0] == 0).all()


def test_score__of_naive_bayes_does_not_saturate() -> None:
    features, label = images()
    head = SklearnHead(naive_bayes(), SPEC).fit(features, label)
    far = np.stack([features[0] * 100, features[0] * 200])
    assert (head.pipeline.predict_proba(far)[0] == head.pipeline.predict_proba(far)[1]).all()

    score = head.score(far)

    assert score[0] != score[1]


def test_score__of_no_images() -> None:
    assert fitted("lda").score(np.empty((0, 12), dtype=np.float32)).shape == (0,)


def test_fit__leaves_the_given_pipeline_alone() -> None:
    pipeline = rbf_svm()

    SklearnHead(pipeline, SPEC).fit(*images())

    assert not hasattr(pipeline[-1], "classes_")


def test_fit__logs_what_did_not_converge(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        SklearnHead(logistic_regression(max_iter=1), SPEC).fit(*images())

    assert caplog.messages == ["LogisticRegression did not converge; raise max_iter or lower C"]


def test_fit__features_of_another_width() -> None:
    with pytest.raises(HeadError, match=r"shape \(120, 5\) for a head that takes 12 columns"):
        SklearnHead(rbf_svm(), SPEC).fit(images()[0][:, :5], images()[1])


def test_fit__features_that_are_not_finite() -> None:
    features, label = images()
    features[7, 3] = np.nan

    with pytest.raises(HeadError, match="features of row 7 are not finite"):
        SklearnHead(rbf_svm(), SPEC).fit(features, label)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.zeros(120), "120 real and 0 fake images; a head needs both"),
        (np.ones(120), "0 real and 120 fake images; a head needs both"),
        (np.arange(120) - 1, "a label is -1; train on 0 for real and 1 for fake only"),
        (np.zeros(3), r"labels of shape \(3,\) for 120 rows"),
    ],
)
def test_fit__wrong_labels(label: np.ndarray, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        SklearnHead(rbf_svm(), SPEC).fit(images()[0], label)


def test_fit__setting_that_sklearn_refuses() -> None:
    with pytest.raises(
        HeadError, match=r"^SVC cannot be fitted: The 'C' parameter .* Got -1.0"
    ) as e:
        SklearnHead(rbf_svm(C=-1.0), SPEC).fit(*images())
    assert "\n" not in str(e.value)


def test_score__more_neighbours_than_images() -> None:
    head = SklearnHead(knn(n_neighbors=121), SPEC).fit(*images())

    with pytest.raises(HeadError, match=r"^KNeighborsClassifier cannot score: "):
        head.score(images()[0])


def test_fit__bottleneck_of_another_backbone() -> None:
    other = (SPEC[0], replace(SPEC[1], fingerprint="c" * 64))
    pipeline = reduced(rbf_svm(), REDUCTIONS["bottleneck"]())

    with pytest.raises(
        HeadError,
        match=r"bottleneck does not fit .*'dino.pooled' has the fingerprint cccccccc, not bbbbbbbb",
    ):
        SklearnHead(pipeline, other).fit(*images())


def test_score__before_fit() -> None:
    with pytest.raises(HeadError, match="SVC is not fitted; fit it with `dfl heads`"):
        SklearnHead(rbf_svm(), SPEC).score(images()[0])


def test_score__classes_in_other_words() -> None:
    features, label = images()
    pipeline = rbf_svm().fit(features, np.array(["real", "fake"])[label])

    with pytest.raises(HeadError, match=r"classes \[.*'fake'.*'real'.*\], not \[0, 1\]"):
        SklearnHead(pipeline, SPEC).score(features)


def test_score__pipeline_of_another_width() -> None:
    features, label = images()

    with pytest.raises(HeadError, match="SVC is fitted on 12 columns, its layers have 8"):
        SklearnHead(rbf_svm().fit(features, label), SPEC[:1]).score(features[:, :8])


def test_score__of_something_that_is_no_classifier() -> None:
    features, label = images()
    regression = LinearRegression().fit(features, label)
    regression.classes_ = np.array([0, 1])

    with pytest.raises(HeadError, match="LinearRegression gives neither margins nor probabilities"):
        SklearnHead(Pipeline([("estimator", regression)]), SPEC).score(features)


def test_score__equals_plain_decision_function() -> None:
    features, label = images()
    head = SklearnHead(Pipeline([("estimator", SVC())]), SPEC).fit(features, label)

    np.testing.assert_array_equal(
        head.score(features), SVC().fit(features, label).decision_function(features)
    )
