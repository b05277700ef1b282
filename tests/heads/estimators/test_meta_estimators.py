"""Weighted and averaged heads against plain sklearn with explicit weights."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, LinearSVC

from dfl.errors import HeadError
from dfl.heads import Balanced, LinearProbe, OnePerFamily
from dfl.study.run.fitting import seeded
from tests.heads.sklearn_examples import images, provenance

WEIGHTED = [
    LogisticRegression(C=0.1, max_iter=2000),
    LinearSVC(C=0.01, dual=False),
    SVC(),
    GaussianNB(),
    LinearProbe(epochs=3),
    RandomForestClassifier(5, random_state=0),
]


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    features, label = images(300)
    kept = (label == 0) | (np.arange(300) % 3 > 0)
    features, label = (features / np.logspace(-2, 2, 12))[kept], label[kept]
    return features, label, provenance(label)


def plain_weights(label: np.ndarray, kinds: list[pd.Series]) -> np.ndarray:
    """By counting in plain Python; `kinds` of photographs and of fakes."""
    names = [(int(side), kinds[int(side)].iloc[i]) for i, side in enumerate(label)]
    per_class = {side: len({name for name in names if name[0] == side}) for side in (0, 1)}
    return np.array([len(label) / 2 / per_class[n[0]] / names.count(n) for n in names])


@pytest.mark.parametrize("by", ["family", "generator", "dataset"])
def test_weights__every_kind_of_a_class_counts_alike(by: str, data) -> None:
    _, label, kinds = data
    columns = [kinds["dataset" if by == "dataset" else "source"], kinds[by]]

    weight = Balanced(LogisticRegression(), by=by).weights(label, kinds)

    np.testing.assert_allclose(weight, plain_weights(label, columns))
    assert weight.sum() == pytest.approx(len(label))
    assert weight[label == 1].sum() == pytest.approx(len(label) / 2)


@pytest.mark.parametrize("estimator", WEIGHTED, ids=lambda each: type(each).__name__)
def test_balanced__equals_the_classifier_with_explicit_weights(estimator, data) -> None:
    features, label, kinds = data
    weight = plain_weights(label, [kinds["source"], kinds["family"]])

    found = Balanced(estimator).fit(features, label, kinds)
    expected = clone(estimator).fit(features, label, sample_weight=weight)

    assert (found.predict(features) == expected.predict(features)).all()
    if hasattr(expected, "decision_function"):
        score = expected.decision_function(features)
        np.testing.assert_allclose(found.decision_function(features), score, atol=1e-9)


def test_balanced__with_one_kind_a_class_is_class_weight_balanced(data) -> None:
    features, label, kinds = data
    expected = LogisticRegression(C=0.1, class_weight="balanced").fit(features, label)
    one = kinds.assign(family="a", source="b")

    for given in (None, one):
        found = Balanced(LogisticRegression(C=0.1)).fit(features, label, given)
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-6)


def test_balanced__a_classifier_without_weights(data) -> None:
    with pytest.raises(HeadError, match="KNeighborsClassifier takes no weights of images; balance"):
        Balanced(KNeighborsClassifier()).fit(*data)


@pytest.mark.parametrize("by", ["family", "generator", "source"])
@pytest.mark.parametrize(
    "estimator",
    [LogisticRegression(C=0.1), LinearDiscriminantAnalysis(), SVC(), GaussianNB()],
    ids=lambda each: type(each).__name__,
)
def test_one_per_family__averages_over_the_spread_of_scores(estimator, by: str, data) -> None:
    features, label, kinds = data
    side = 0 if by == "source" else 1
    scores = []
    for kind in sorted(set(kinds[by][label == side])):
        rows = (label != side) | (kinds[by] == kind).to_numpy()
        member = clone(estimator).fit(features[rows], label[rows])
        if isinstance(member, GaussianNB):
            joint = member.predict_joint_log_proba(features)
            scores.append(joint[:, 1] - joint[:, 0])
        else:
            scores.append(member.decision_function(features))
    expected = np.mean([score / np.std(score) for score in scores], axis=0)

    found = OnePerFamily(estimator, by=by).fit(features, label, kinds)

    np.testing.assert_allclose(found.decision_function(features), expected, atol=1e-9)
    assert ((expected > 0) == found.predict(features)).all()
    assert len(found.kinds_) == len(scores)
    is_linear = isinstance(estimator, LogisticRegression | LinearDiscriminantAnalysis)
    assert (found.members_ == []) == is_linear == hasattr(found, "coef_")


def test_one_per_family__no_family_outvotes_the_others(data) -> None:
    """One family lies a hundred times as far from the photographs as the others."""
    features, label, kinds = data
    far = features.copy()
    vae = (kinds["family"] == "vae").to_numpy()
    far[vae, 11] += 500
    others = np.flatnonzero((label == 0) | ~vae)

    found = OnePerFamily(LogisticRegression(C=1e6, max_iter=10_000)).fit(far, label, kinds)

    share = np.abs(found.coef_[0, :4]).max() / np.abs(found.coef_).max()
    assert share > 0.05
    assert (found.predict(far)[others] == label[others]).mean() > 0.6


def test_one_per_family__balances_photographs_within_each(data) -> None:
    features, label, kinds = data

    found = OnePerFamily(Balanced(LogisticRegression(C=0.1))).fit(features, label, kinds)

    coef = []
    for kind in ("diffusion", "gan", "vae"):
        rows = (label == 0) | (kinds["family"] == kind).to_numpy()
        own, own_kinds = label[rows], kinds[rows].reset_index(drop=True)
        weight = plain_weights(own, [own_kinds["source"], own_kinds["family"]])
        member = LogisticRegression(C=0.1).fit(features[rows], own, sample_weight=weight)
        coef.append(member.coef_[0] / np.std(member.decision_function(features)))
    np.testing.assert_allclose(found.coef_[0], np.mean(coef, axis=0), rtol=1e-6)


def test_one_per_family__one_score_for_all_images(data) -> None:
    features, label, kinds = data

    with pytest.raises(HeadError, match="classifier of diffusion gives all images one score"):
        OnePerFamily(LogisticRegression()).fit(np.zeros_like(features), label, kinds)


@pytest.mark.parametrize("make", [Balanced, OnePerFamily])
def test_wrappers__clone_and_hand_on_the_seed(make: type[BaseEstimator], data) -> None:
    pipeline = Pipeline([("estimator", make(RandomForestClassifier(5, random_state=0)))])

    first, second, other = (seeded(pipeline, seed) for seed in (7, 7, 8))

    assert first[-1].estimator.random_state == 7
    assert pipeline[-1].estimator.random_state == 0
    features, label, kinds = data
    a, b, c = (
        each.fit(features, label, estimator__provenance=kinds).decision_function(features)
        for each in (first, second, other)
    )
    assert (a == b).all()
    assert (a != c).any()
