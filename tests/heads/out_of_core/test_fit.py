"""Every streamed fit against plain sklearn on the same rows in memory, in float64."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from dfl.errors import HeadError
from dfl.heads.estimators import (
    balanced,
    knn,
    lda,
    linear_svm,
    logistic_regression,
    naive_bayes,
    random_forest,
    rbf_svm,
)
from dfl.heads.estimators.meta_estimators import innermost, with_innermost
from dfl.heads.estimators.provenance import takes_weights
from dfl.heads.estimators.reductions import autoencoder, pca, reduced
from dfl.heads.out_of_core import fit, memory
from dfl.heads.out_of_core.fit import fit_streamed, is_streamed
from dfl.heads.out_of_core.stream import Moments, Stream, gathered
from dfl.heads.storage.head_folder import load_head, save_head
from dfl.heads.storage.sklearn_head import SklearnHead
from tests.heads.sklearn_examples import REDUCTIONS, SPEC, WRAPPED, images, provenance

PIPELINES = {
    "linear_svm": linear_svm(C=0.1),
    "linear_svm_weak": linear_svm(C=10.0),
    "logistic_regression": logistic_regression(),
    "logistic_regression_weak": logistic_regression(C=100.0),
    "lda": lda(),
    "lda_half": lda(shrinkage=0.5),
    "lda_plain": lda(shrinkage=None),
    "naive_bayes": naive_bayes(),
}


class ArrayRows:
    """A matrix that comes in blocks of odd sizes."""

    def __init__(self, matrix: np.ndarray, sizes: tuple[int, ...] = (7, 1, 31)) -> None:
        self.matrix, self.sizes = matrix, sizes
        self.shape = matrix.shape
        self.passes = 0

    def blocks(self) -> Iterator[np.ndarray]:
        self.passes += 1
        start = turn = 0
        while start < len(self.matrix):
            size = self.sizes[turn % len(self.sizes)]
            yield self.matrix[start : start + size].copy()
            start, turn = start + size, turn + 1

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.matrix[positions]


def plain(case: str) -> tuple[np.ndarray, np.ndarray]:
    features, label = images(240)
    return features, label


def rank_deficient() -> tuple[np.ndarray, np.ndarray]:
    """Columns 9 and 10 are sums of others, exactly."""
    rng = np.random.default_rng(1)
    label = (np.arange(240) % 2).astype(np.int64)
    features = rng.integers(-8, 9, size=(240, 12)) + 3 * label[:, None] * (np.arange(12) < 3)
    features[:, 9] = features[:, 0] + features[:, 1]
    features[:, 10] = features[:, 2] - features[:, 3]
    return features.astype(np.float32), label


def constant_column() -> tuple[np.ndarray, np.ndarray]:
    features, label = images(240)
    features[:, 5] = 1234.5
    return features, label


def far_from_zero() -> tuple[np.ndarray, np.ndarray]:
    features, label = images(240)
    return (features + 1000 * features.std(axis=0)).astype(np.float32), label


def unbalanced() -> tuple[np.ndarray, np.ndarray]:
    features, label = images(600, seed=2)
    kept = (label == 0) | (np.arange(600) % 25 == 1)
    return features[kept], label[kept]


def sorted_by_class() -> tuple[np.ndarray, np.ndarray]:
    features, label = images(240)
    order = np.argsort(label, kind="stable")
    return features[order], label[order]


DATA = {
    "plain": lambda: images(240),
    "rank_deficient": rank_deficient,
    "constant_column": constant_column,
    "far_from_zero": far_from_zero,
    "unbalanced": unbalanced,
    "sorted_by_class": sorted_by_class,
}


def reference(pipeline: Pipeline, features: np.ndarray, label: np.ndarray) -> Pipeline:
    """Fit plain sklearn in float64, iterative ones to the end."""
    tight: Pipeline = clone(pipeline)
    if isinstance(tight[-1], LogisticRegression | LinearSVC):
        tight[-1].set_params(tol=1e-10, max_iter=100_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at the limits of float64
        return tight.fit(features.astype(np.float64), label)


def assert_same(found: Pipeline, expected: Pipeline, features: np.ndarray) -> None:
    ours, theirs = found[-1], expected[-1]
    assert type(ours) is type(theirs)
    assert vars(ours).keys() == vars(theirs).keys()
    assert ours.classes_.tolist() == [0, 1]
    wide = features.astype(np.float64)
    if hasattr(theirs, "coef_"):
        size = np.abs(theirs.coef_).max()
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-4 * size)
        np.testing.assert_allclose(
            found.decision_function(wide), expected.decision_function(wide), rtol=1e-4, atol=1e-4
        )
    np.testing.assert_allclose(
        found.predict_proba(wide) if hasattr(found, "predict_proba") else 0,
        expected.predict_proba(wide) if hasattr(expected, "predict_proba") else 0,
        atol=1e-4,
    )


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", PIPELINES)
def test_fit_streamed__equals_sklearn_in_memory(tmp_path: Path, name: str, data: str) -> None:
    features, label = DATA[data]()
    stream = Stream(ArrayRows(features), label)

    found = fit_streamed(PIPELINES[name], stream, scratch=tmp_path)

    assert_same(found, reference(PIPELINES[name], features, label), features)


@pytest.mark.parametrize("name", [name for name in WRAPPED if not name.endswith("forest")])
def test_fit_streamed__of_weighted_rows_equals_sklearn_in_memory(tmp_path: Path, name: str) -> None:
    features, label = images(240)
    kinds = provenance(label)
    wide = features.astype(np.float64)
    expected = clone(WRAPPED[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at the limits of float64
        if isinstance(innermost(expected[-1]), LogisticRegression | LinearSVC):
            tight = clone(innermost(expected[-1])).set_params(tol=1e-10, max_iter=100_000)
            expected.steps[-1] = ("estimator", with_innermost(expected[-1], tight))
        expected.fit(wide, label, estimator__provenance=kinds)

    head = SklearnHead(WRAPPED[name](), SPEC).fit_streamed(
        Stream(ArrayRows(features), label), scratch=tmp_path, provenance=kinds
    )

    score = expected.decision_function(wide)
    np.testing.assert_allclose(head.score(features), score, rtol=1e-4, atol=1e-4)
    assert is_streamed(WRAPPED[name](), 240, 12, out_of_core="always")


WEIGHABLE = {
    **{name: PIPELINES[name] for name in ("linear_svm", "logistic_regression", "naive_bayes")},
    **{name: build() for name, build in WRAPPED.items() if not name.endswith("forest")},
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", WEIGHABLE)
def test_weight__three_thirds_are_a_whole(tmp_path: Path, name: str, streamed: bool) -> None:
    """Rows that are there three times, with a third of the weight, teach what they teach once."""
    features, label = images(240)
    head, kinds = SklearnHead(WEIGHABLE[name], SPEC), provenance(label)
    thrice = np.tile(np.arange(240), 3)
    weight = np.full(720, 1 / 3)
    if streamed:
        stream = Stream(ArrayRows(features[thrice]), label[thrice])
        found = head.fit_streamed(
            stream, scratch=tmp_path, provenance=kinds.iloc[thrice], weight=weight
        )
        once = head.fit_streamed(
            Stream(ArrayRows(features), label), scratch=tmp_path, provenance=kinds
        )
    else:
        found = head.fit(features[thrice], label[thrice], kinds.iloc[thrice], weight)
        once = head.fit(features, label, kinds)
    if not takes_weights(head.pipeline[-1]):
        once = head.fit(features[thrice], label[thrice], kinds.iloc[thrice])
    np.testing.assert_allclose(found.score(features), once.score(features), rtol=2e-3, atol=2e-3)


def test_fit_streamed__balanced_rbf_svm_is_a_balanced_linear_one(tmp_path: Path) -> None:
    features, label = images(240)
    kinds = provenance(label)

    found = fit_streamed(
        balanced(rbf_svm()),
        Stream(ArrayRows(features), label),
        scratch=tmp_path,
        provenance=kinds,
    )

    assert [name for name, _ in found.steps] == ["scale", "kernel", "estimator"]
    weight = found[-1].weights(label, kinds)
    expected = LinearSVC(C=1.0, dual=False, tol=1e-10, max_iter=10_000)
    expected.fit(found[:-1].transform(features.astype(np.float64)), label, sample_weight=weight)
    np.testing.assert_allclose(
        found.decision_function(features),
        expected.decision_function(found[:-1].transform(features)),
        atol=2e-3,
    )


def test_is_streamed__names_what_is_wrapped() -> None:
    with pytest.raises(HeadError, match="RandomForestClassifier needs all rows at once"):
        is_streamed(balanced(random_forest()), 240, 12, out_of_core="always")


@pytest.mark.parametrize("sizes", [(1,), (119, 2), (1000,)])
@pytest.mark.parametrize("name", PIPELINES)
def test_fit_streamed__whatever_the_blocks(
    tmp_path: Path, name: str, sizes: tuple[int, ...]
) -> None:
    features, label = images(120)

    found = fit_streamed(
        PIPELINES[name], Stream(ArrayRows(features, sizes), label), scratch=tmp_path
    )

    assert_same(found, reference(PIPELINES[name], features, label), features)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(
    ("components", "whiten"), [(3, False), (0.8, False), (0.999, False), (4, True)]
)
def test_pca__equals_sklearn_in_memory(
    tmp_path: Path, data: str, components: float, whiten: bool
) -> None:
    features, label = DATA[data]()
    pipeline = reduced(lda(), pca(components, whiten=whiten))

    found = fit_streamed(pipeline, Stream(ArrayRows(features), label), scratch=tmp_path)
    expected = reference(pipeline, features, label)

    ours, theirs = found["pca"], expected["pca"]
    assert vars(ours).keys() == vars(theirs).keys()
    assert ours.n_components_ == theirs.n_components_
    for attribute in ("explained_variance_", "explained_variance_ratio_", "singular_values_"):
        np.testing.assert_allclose(getattr(ours, attribute), getattr(theirs, attribute), rtol=1e-5)
    np.testing.assert_allclose(ours.noise_variance_, theirs.noise_variance_, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(
        found.decision_function(features),
        expected.decision_function(features.astype(np.float64)),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("rows", [8, 120])
def test_pca__more_components_than_rows_or_columns(tmp_path: Path, rows: int) -> None:
    features, label = images(rows)
    stream = Stream(ArrayRows(features), label)

    with pytest.raises(HeadError, match=rf"n_components=13 must be .* at most .*={min(rows, 12)}$"):
        fit_streamed(reduced(lda(), pca(13)), stream, scratch=tmp_path)


@pytest.mark.parametrize(
    "pipeline",
    [
        lda(5.0),
        lda(-0.5),
        logistic_regression(C=-1.0),
        logistic_regression(C=0.0),
        logistic_regression(max_iter=-5),
        linear_svm(C=0.0),
        naive_bayes(-1.0),
        rbf_svm(C=-1.0),
        reduced(lda(), pca(2.5)),
        reduced(lda(), pca(0)),
    ],
    ids=str,
)
def test_settings__what_sklearn_refuses_is_refused(tmp_path: Path, pipeline: Pipeline) -> None:
    features, label = images(60)
    head = SklearnHead(pipeline, SPEC)

    with pytest.raises(HeadError, match=r"cannot be fitted: .*(must be|minimum)"):
        head.fit(features, label)
    with pytest.raises(HeadError, match=r"cannot be fitted: .*must be"):
        head.fit_streamed(Stream(ArrayRows(features), label), scratch=tmp_path)


@pytest.mark.parametrize("make", [linear_svm, logistic_regression])
@pytest.mark.parametrize("c", [10.0, 1000.0])
def test_linear__separable_classes_and_a_weak_penalty(
    tmp_path: Path, make: Callable[..., Pipeline], c: float
) -> None:
    """The loss is a millionth of what it is at first, and so are gradient and curvature."""
    label = (np.arange(2000) % 2).astype(np.int64)
    features = np.random.default_rng(0).normal(size=(2000, 12)).astype(np.float32)
    features[:, :4] += 3 * label[:, None].astype(np.float32)

    stream = Stream(ArrayRows(features, (900,)), label)
    found = fit_streamed(make(C=c), stream, scratch=tmp_path)
    expected = make(C=c)
    solver = {"solver": "newton-cholesky"} if make is logistic_regression else {}
    expected[-1].set_params(tol=1e-12, max_iter=100_000, **solver)
    expected.fit(features.astype(np.float64), label)

    def objective(pipeline: Pipeline) -> float:
        margin = np.where(label == 1, 1, -1) * pipeline.decision_function(features.astype(float))
        weights = pipeline[-1].coef_[0]
        if make is logistic_regression:
            return float(c * np.logaddexp(0, -margin).sum() + weights @ weights / 2)
        weights = np.append(weights, pipeline[-1].intercept_)
        return float(c * (np.maximum(0, 1 - margin) ** 2).sum() + weights @ weights / 2)

    assert objective(found) == pytest.approx(objective(expected), rel=1e-7)
    assert np.max(found[-1].n_iter_) < 100


@pytest.mark.parametrize("pipeline", [lda(None), naive_bayes()])
@pytest.mark.parametrize("streaming", [False, True])
def test_head__images_that_are_all_alike(
    tmp_path: Path, pipeline: Pipeline, streaming: bool
) -> None:
    label = (np.arange(40) % 2).astype(np.int64)
    features = np.repeat(label[:, None], 12, axis=1).astype(np.float32)
    if pipeline[-1].__class__.__name__ == "GaussianNB":
        features[:] = 1

    def fit_and_score() -> None:
        head = SklearnHead(pipeline, SPEC)
        if streaming:
            head = head.fit_streamed(Stream(ArrayRows(features), label), scratch=tmp_path)
        else:
            head = head.fit(features, label)
        with np.errstate(all="ignore"):
            head.score(features)

    with pytest.raises(HeadError, match="images of a class are all but equal; look whether"):
        fit_and_score()


@pytest.mark.parametrize("least", [1, 7, 60, 1000])
def test_gathered__same_rows_in_larger_blocks(least: int) -> None:
    features, label = images(60)
    blocks = list(gathered(Stream(ArrayRows(features), label).blocks(), least))

    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in blocks]), features)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in blocks]), label)
    assert all(len(rows) >= least for rows, _ in blocks[:-1])


@pytest.mark.parametrize("gamma", ["scale", "auto", 0.05])
def test_rbf_svm__is_a_linear_one_on_nystroems_features(
    tmp_path: Path, gamma: float | str, caplog: pytest.LogCaptureFixture
) -> None:
    features, label = constant_column()

    found = fit_streamed(rbf_svm(gamma=gamma), Stream(ArrayRows(features), label), scratch=tmp_path)

    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    width = {"scale": 1 / (12 * scaled.var()), "auto": 1 / 12}.get(gamma, gamma)
    kernel = Nystroem(gamma=width, n_components=240, random_state=0).fit(scaled)
    expected = LinearSVC(C=1.0, dual=False, tol=1e-10, max_iter=10_000)
    expected.fit(kernel.transform(scaled), label)
    assert [name for name, _ in found.steps] == ["scale", "kernel", "estimator"]
    assert found["kernel"].component_indices_.tolist() == kernel.component_indices_.tolist() or (
        sorted(found["kernel"].component_indices_) == sorted(kernel.component_indices_)
    )
    np.testing.assert_allclose(
        found.decision_function(features),
        expected.decision_function(kernel.transform(scaled)),
        atol=2e-3,
    )
    assert "240 training images are many for an exact RBF SVM" in caplog.text


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", [*PIPELINES, "rbf_svm"])
def test_head__fits_scores_and_is_stored_as_any_other(
    tmp_path: Path, name: str, reduction: str
) -> None:
    features, label = images(240)
    pipeline = reduced((PIPELINES | {"rbf_svm": rbf_svm()})[name], REDUCTIONS[reduction]())
    rows = ArrayRows(features)

    head = SklearnHead(pipeline, SPEC).fit_streamed(Stream(rows, label), scratch=tmp_path / "s")
    save_head(head, tmp_path / "head")

    score = head.score_rows(rows)
    np.testing.assert_allclose(score, head.score(features), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(load_head(tmp_path / "head").score_rows(rows), score)
    assert ((score > 0) == (head.pipeline.predict(features) == 1)).mean() > 0.99
    assert not list((tmp_path / "s").glob("*")), "scratch files stay"
    assert not hasattr(pipeline[-1], "classes_")


def test_stream__is_summed_up_once_for_all_heads(tmp_path: Path) -> None:
    features, label = images(240)
    rows = ArrayRows(features)
    stream = Stream(rows, label)

    fit_streamed(lda(shrinkage=None), stream, scratch=tmp_path)
    first = rows.passes
    fit_streamed(lda(shrinkage=0.5), stream, scratch=tmp_path)
    fit_streamed(naive_bayes(), stream, scratch=tmp_path)

    assert (first, rows.passes) == (2, 2)  # scaling, then the moments


def test_linear_heads__need_few_passes_in_correlated_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12)) * np.logspace(0, -3, 12)
    features, label = images(600)
    rows = ArrayRows((features / features.std(axis=0) @ mix).astype(np.float32), (200,))

    fit_streamed(logistic_regression(C=10.0), Stream(rows, label), scratch=tmp_path)

    assert rows.passes < 25


def test_moments__of_classes_that_meet_in_no_block() -> None:
    features, label = sorted_by_class()

    found = Moments.of(Stream(ArrayRows(features, (11,)), label).blocks(), 12)

    for side in (0, 1):
        own = features[label == side].astype(np.float64)
        np.testing.assert_allclose(found.mean[side], own.mean(axis=0), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.scatter[side] / len(own), np.cov(own.T, bias=True))
    wide = features.astype(np.float64)
    np.testing.assert_allclose(found.joint_scatter() / 240, np.cov(wide.T, bias=True), rtol=1e-9)


def test_logistic_regression__that_runs_out_of_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features, label = images(240)

    head = SklearnHead(logistic_regression(max_iter=1), SPEC)
    head.fit_streamed(Stream(ArrayRows(features), label), scratch=tmp_path)

    assert caplog.messages == ["LogisticRegression did not converge; raise max_iter or lower C"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [(200, 3, np.nan)]}, "features of row 200 are not finite; extract them again"),
        ({"rows": [(7, 0, np.inf)]}, "features of row 7 are not finite"),
        ({"label": 0}, "240 real and 0 fake images; a head needs both"),
        ({"width": 5}, r"shape \(240, 5\) for a head that takes 12 columns"),
    ],
)
def test_head__refuses_what_it_refuses_in_memory(
    tmp_path: Path, change: dict, message: str
) -> None:
    features, label = images(240)
    for row, column, value in change.get("rows", []):
        features[row, column] = value
    label = np.full_like(label, change["label"]) if "label" in change else label
    features = features[:, : change.get("width", 12)]

    with pytest.raises(HeadError, match=message):
        SklearnHead(lda(), SPEC).fit_streamed(Stream(ArrayRows(features), label), scratch=tmp_path)


def test_score_rows__names_the_row_that_is_not_finite() -> None:
    features, label = images(240)
    head = SklearnHead(lda(), SPEC).fit(features, label)
    features[99, 2] = np.nan

    with pytest.raises(HeadError, match="features of row 99 are not finite"):
        head.score_rows(ArrayRows(features))


# Which way a head is fitted


def test_is_streamed__above_what_fits() -> None:
    most = memory.IN_MEMORY_BYTES // (4 * 768)

    assert not is_streamed(lda(), most, 768, out_of_core="auto")
    assert is_streamed(lda(), most + 1, 768, out_of_core="auto")
    assert is_streamed(lda(), 10, 768, out_of_core="always")
    assert not is_streamed(lda(), most + 1, 768, out_of_core="never")


@pytest.mark.parametrize("name", PIPELINES)
def test_is_streamed__few_rows_of_many_columns_are_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "free_memory", lambda: 2**36)

    assert not is_streamed(PIPELINES[name], 1_000, 18_432, out_of_core="auto")
    assert is_streamed(PIPELINES[name], 1_000, 18_432, out_of_core="always")
    assert is_streamed(PIPELINES[name], 100_000, 18_432, out_of_core="auto")


@pytest.mark.parametrize("reduction", [pca(50), pca(0.9)])
def test_is_streamed__by_what_a_reduction_sums_up(
    reduction: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "free_memory", lambda: 2**36)

    assert not is_streamed(reduced(lda(), reduction), 1_000, 18_432, out_of_core="auto")
    assert is_streamed(reduced(lda(), reduction), 200_000, 4_096, out_of_core="auto")


@pytest.mark.parametrize(
    ("pipeline", "rows", "way", "message"),
    [
        (
            logistic_regression(),
            200_000,
            "auto",
            r"^LogisticRegression needs sums of 18,432 x 18,432 columns, about 15\.2 GiB, and "
            r"4\.0 GiB are free; take fewer layers of the features, or dfl\.heads\.estim.*$",
        ),
        (rbf_svm(), 40_000, "auto", r"^SVC needs sums of 18,432 x .*; take fewer layers of the f"),
        (linear_svm(), 1_000, "always", r"^LinearSVC needs sums of .*; leave out_of_core at auto$"),
        (lda(), 1_000, "auto", r"^LinearDisc.* needs all 1,000 x 18,432 .*; take fewer layers"),
        (linear_svm(), 60_000, "never", r"^LinearSVC needs all 60,000 x .*; leave out_of_core at"),
        (linear_svm(), 20_000, "never", r"^LinearSVC needs all 20,000 x .*; take fewer layers of"),
    ],
)
def test_is_streamed__too_large_for_the_way_that_is_chosen(
    pipeline: Pipeline, rows: int, way: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "free_memory", lambda: 2**32)

    with pytest.raises(HeadError, match=message):
        is_streamed(pipeline, rows, 18_432, out_of_core=way)


def test_is_streamed__rbf_svm_by_its_rows() -> None:
    assert not is_streamed(rbf_svm(), memory.EXACT_RBF_ROWS, 16, out_of_core="auto")
    assert is_streamed(rbf_svm(), memory.EXACT_RBF_ROWS + 1, 16, out_of_core="auto")
    assert not is_streamed(rbf_svm(), memory.EXACT_RBF_ROWS + 1, 16, out_of_core="never")


def test_is_streamed__exact_rbf_svm_behind_an_autoencoder_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fit, "free_memory", lambda: 2**36)

    assert not is_streamed(reduced(rbf_svm(), autoencoder(4)), 200_000, 12, out_of_core="auto")

    assert "rbf_svm behind Autoencoder is exact" in caplog.text
    assert "square of 200,000 images; train it with `dfl fit` and take" in caplog.text


@pytest.mark.parametrize(
    ("pipeline", "name", "instead"),
    [
        (knn(), "KNeighborsClassifier", r"take lda, linear_svm, .*, or fewer images"),
        (random_forest(), "RandomForestClassifier", r"take lda, linear_svm, .*"),
        (reduced(lda(), autoencoder()), "Autoencoder", r"train it with `dfl fit` .*bottleneck, .*"),
    ],
)
def test_is_streamed__what_needs_all_rows(
    pipeline: Pipeline, name: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "free_memory", lambda: 2**33)

    assert not is_streamed(pipeline, 500_000, 768, out_of_core="auto")
    with pytest.raises(
        HeadError,
        match=rf"^{name} needs all 1,000,000 x 768 training features at once, about 11\.4 GiB with "
        rf"sklearn's copies, and 8\.0 GiB are free; {instead}$",
    ):
        is_streamed(pipeline, 1_000_000, 768, out_of_core="auto")
    with pytest.raises(HeadError, match=rf"^{name} needs all rows at once, not out_of_core; t"):
        is_streamed(pipeline, 10, 768, out_of_core="always")


def test_is_streamed__never_means_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "free_memory", lambda: 2**30)

    with pytest.raises(HeadError, match=r"^LinearDis.* 1\.0 GiB are free; leave out_of_core at au"):
        is_streamed(lda(), 1_000_000, 768, out_of_core="never")


def test_is_streamed__settings_that_only_sklearn_knows() -> None:
    weighted = Pipeline([("estimator", LogisticRegression(class_weight="balanced"))])

    with pytest.raises(HeadError, match="LogisticRegression needs all rows at once"):
        is_streamed(weighted, 10, 12, out_of_core="always")


def test_free_memory__is_a_number_of_bytes() -> None:
    assert 2**20 < memory.free_memory() < 2**50


@pytest.mark.parametrize(
    ("size", "text"),
    [(12, "12 bytes"), (2**20, "1 MiB"), (3.5 * 2**30, "3.5 GiB"), (2**41, "2048.0 GiB")],
)
def test_readable__as_a_person_would(size: float, text: str) -> None:
    assert memory.readable(size) == text
