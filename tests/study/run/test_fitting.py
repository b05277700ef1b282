"""Cells against plain sklearn on the same .npy files and manifest."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.calibration import _SigmoidCalibration
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    roc_auc_score,
    roc_curve,
)
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from dfl.errors import CheckpointError, ConfigError
from dfl.evaluation import calibrated, platt_scaling
from dfl.heads.estimators import (
    balanced,
    lda,
    linear_svm,
    logistic_regression,
    naive_bayes,
    random_forest,
    rbf_svm,
)
from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.heads.estimators.reductions import bottleneck, pca
from dfl.heads.modules.bottleneck import Bottleneck
from dfl.heads.out_of_core.stream import Stream
from dfl.heads.storage.head_folder import load_head, save_head
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.study.analysis.judge import Judge
from dfl.study.design.training_sets import held_out_rows, split_rows
from dfl.study.run.cells import CellStore
from dfl.study.run.fitting import _merit, fit_cells, fit_head, seeded
from dfl.study.run.study import Study
from tests.study.study_examples import PARTS, Raises, cell, example, opened_anew, pipeline

CS = (0.001, 0.1, 10.0)
HEADS = {
    "probe": [logistic_regression(C=c) for c in CS],
    "svm": [rbf_svm()],
    "forest": [random_forest(n_estimators=5)],
}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    reductions = {"none": [], "pca": [pca(2), pca(4)]}
    return example(tmp_path, heads=HEADS, reductions=reductions)


def fitted(study: Study, *cells):
    """Fit cells; give the scores of each by condition, and what was chosen."""
    outcomes = fit_cells(study, cells)
    assert [outcome.cause for outcome in outcomes] == [None] * len(cells)
    store = CellStore(study.folder)
    return [store.read(study.key(c)) for c in cells]


class Plain:
    """The same by sklearn, pandas and numpy alone: trained on alpha."""

    def __init__(self, study: Study, layers: list[str], condition: str = "none") -> None:
        folders = study.features[condition].folders
        self.table = pd.read_csv(folders["one"] / "manifest.csv", na_filter=False)
        self.label = self.table["label"].to_numpy()
        self.x = np.hstack(
            [np.load(folders[layer.split(".")[0]] / f"{layer}.npy") for layer in layers]
        )
        self.train, self.val = (self.rows("alpha", split) for split in ("train", "val"))
        self.held = np.flatnonzero(self.table["split"].isin(["val", "test"]) & (self.label >= 0))

    def rows(self, dataset: str, split: str) -> np.ndarray:
        wanted = (self.table["dataset"] == dataset) & (self.table["split"] == split)
        return np.flatnonzero(wanted & (self.label >= 0))

    def fit(self, estimator, components: int | None = None):
        steps = [StandardScaler()]
        if components is not None:
            steps.append(PCA(components, random_state=0))
        x = self.x
        for step in steps:
            step.fit(x[self.train])
            x = step.transform(x)
        return self.fit_on(x, estimator)

    def fit_on(self, x: np.ndarray, estimator):
        estimator.fit(x[self.train], self.label[self.train])
        return estimator.decision_function(x)

    def merit(self, score: np.ndarray) -> tuple[float, float, float]:
        truth = self.label[self.val]
        prob = calibrated(score[self.val], platt_scaling(score[self.val], truth))
        fpr, tpr, _ = roc_curve(truth, score[self.val], drop_intermediate=False)
        both = round(roc_auc_score(truth, score[self.val]), 10), ((tpr + 1 - fpr) / 2).max()
        return *both, -round(log_loss(truth, prob), 6)


def probes(plain: Plain, components: tuple[int | None, ...] = (None,)) -> np.ndarray:
    found = [plain.fit(LogisticRegression(C=c, max_iter=2000), k) for k in components for c in CS]
    return max(found, key=plain.merit)


@pytest.mark.parametrize("condition", ["none", "blur"])
def test_fit_cells__scores_of_plain_sklearn(study: Study, condition: str) -> None:
    layers = ["one.a", "two.pooled"]
    cells = [cell(name, features=tuple(layers), condition=condition) for name in ("probe", "svm")]
    plain = Plain(study, layers, condition)
    for (scores, _), expected in zip(
        fitted(study, *cells), [probes(plain), plain.fit(SVC(C=1.0))], strict=True
    ):
        assert list(scores) == [condition]
        np.testing.assert_allclose(scores[condition], expected[plain.held], rtol=1e-6, atol=1e-7)


def test_fit_cells__behind_pca(study: Study) -> None:
    cells = [cell(name, features=tuple(PARTS), reduction="pca") for name in ("probe", "svm")]
    plain = Plain(study, PARTS)
    svms = max((plain.fit(SVC(C=1.0), k) for k in (2, 4)), key=plain.merit)
    for (scores, _), expected in zip(
        fitted(study, *cells), [probes(plain, (2, 4)), svms], strict=True
    ):
        np.testing.assert_allclose(scores["none"], expected[plain.held], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
def test_fit_cells__families_count_alike(
    study: Study, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    """Alpha's 40 and 20 fakes are two families; its photographs are one source."""
    monkeypatch.setattr("dfl.study.run.fitting.is_streamed", lambda *_, **__: streaming)
    frame = study.frame.assign(family=study.frame["generator"], source="camera")
    heads = {"kinds": [balanced(logistic_regression(C=0.1))]}
    study = replace(study, frames={0: frame}, heads=heads)
    plain = Plain(study, ["one.a"])
    train = plain.train
    kind = plain.table["generator"].to_numpy()[train]
    count = {name: int((kind == name).sum()) for name in ("real", "g1", "g2")}
    share = {"real": 1 / 2, "g1": 1 / 4, "g2": 1 / 4}
    weight = np.array([len(train) * share[name] / count[name] for name in kind])
    x = StandardScaler().fit(plain.x[train]).transform(plain.x)
    probe = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000)
    probe.fit(x[train].astype(np.float64), plain.label[train], sample_weight=weight)

    [(scores, _)] = fitted(study, cell("kinds"))

    expected = probe.decision_function(x[plain.held].astype(np.float64))
    np.testing.assert_allclose(scores["none"], expected, atol=2e-3)


def test_fit_cells__large_features_are_never_held_at_once(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamed fits, of rows that are read in pieces, give what fits in memory give."""

    def scores() -> list[np.ndarray]:
        found = []
        for reduction in ("none", "pca"):
            cells = [cell(n, features=tuple(PARTS), reduction=reduction) for n in ("probe", "svm")]
            found += [by_condition["none"] for by_condition, _ in fitted(study, *cells)]
        return found

    in_memory = scores()
    calls: list[int] = []
    streamed = SklearnHead.fit_streamed

    def counted(self: SklearnHead, stream: Stream, **options: object) -> SklearnHead:
        calls.append(stream.n_rows)
        return streamed(self, stream, **options)

    monkeypatch.setattr(SklearnHead, "fit_streamed", counted)
    monkeypatch.setattr("dfl.study.run.fitting.is_streamed", lambda *_, **__: True)
    shutil.rmtree(study.folder)
    found = scores()
    assert len(calls) == (1 + 2) * 3 + (1 + 2) * 1  # reductions times candidates
    for place in (0, 2):  # the probes
        np.testing.assert_allclose(found[place], in_memory[place], rtol=1e-3, atol=1e-3)
    for place in (1, 3):  # Nystroem's stand-in for the RBF SVM
        assert np.corrcoef(found[place], in_memory[place])[0, 1] > 0.95
    assert not list(study.folder.glob(".rows*"))


def test_fit_cells__trained_on_one_pair_and_scored_on_another(study: Study) -> None:
    plain = Plain(study, ["one.a"])
    for name, expected in (("probe", probes(plain)), ("svm", plain.fit(SVC(C=1.0)))):
        [(scores, _)] = fitted(study, cell(name))
        rows, _ = Judge(study, metric="auroc", replicates=2)(cell(name), scores)
        (found,) = [
            row for row in rows if (row["split"], row["scope"], row["name"]) == TESTED_ON_BETA
        ]
        beta = plain.rows("beta", "test")
        truth, score = plain.label[beta], expected[beta]
        assert found["auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        assert found["accuracy"] == accuracy_score(truth, score > 0)
        assert 0.2 < found["auroc"] < 0.999  # a number that could be another


def drawn(study: Study, **draws: list[str]) -> Study:
    """The same study, whose heads learn from several conditions at once too."""
    tested = {name: ["none"] for name in draws}
    return replace(study, draws=draws, conditions={**study.conditions, **tested})


def test_fit_cells__draws_of_plain_sklearn(study: Study) -> None:
    """An image that is learnt from in two draws weighs half in each."""
    study = drawn(study, both=["none", "blur"])
    none, blur = (Plain(study, ["one.a"], condition) for condition in ("none", "blur"))
    learnt = np.concatenate([none.x[none.train], blur.x[none.train]])
    label = np.tile(none.label[none.train], 2)
    scale = StandardScaler().fit(learnt)

    def fit(estimator) -> np.ndarray:
        estimator.fit(scale.transform(learnt), label, sample_weight=np.full(len(label), 0.5))
        return estimator.decision_function(scale.transform(none.x))

    fits = [fit(LogisticRegression(C=c, max_iter=2000)) for c in CS]
    expected = {"probe": max(fits, key=none.merit), "svm": fit(SVC(C=1.0))}
    cells = [cell(name, condition="both") for name in expected]
    for (scores, _), name in zip(fitted(study, *cells), expected, strict=True):
        assert list(scores) == ["none"]  # nothing is validated or tested on draws
        np.testing.assert_allclose(scores["none"], expected[name][none.held], rtol=1e-4, atol=1e-5)
    head, counts = fit_head(cells[1], study)
    assert counts == {"real": 24, "fake": 36}  # images
    assert head.origin.preprocess == {"is": "none"}
    again = head.score(study.features["none"].matrix(["one.a"], none.held))
    np.testing.assert_allclose(again, expected["svm"][none.held], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("streamed", [False, True])
def test_fit_cells__draws_of_an_image_weigh_as_much_as_it_does(
    study: Study, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    """Three draws that are the image as it comes teach what it teaches: C keeps its meaning."""
    if streamed:
        monkeypatch.setattr("dfl.study.run.fitting.is_streamed", lambda *_, **__: True)
    heads = {
        "probe": HEADS["probe"],
        "margin": [linear_svm(C=c) for c in CS],
        "bayes": [naive_bayes()],
    }
    study = drawn(replace(study, heads=heads), thrice=["none"] * 3)
    for name in heads:
        [(scores, info)] = fitted(study, cell(name, condition="thrice"))
        [(expected, once)] = fitted(study, cell(name))
        assert info["head"] == once["head"]
        np.testing.assert_allclose(scores["none"], expected["none"], rtol=1e-3, atol=1e-4)


def test_fit_cells__a_head_that_takes_no_weights_learns_from_draws_too(study: Study) -> None:
    study = drawn(replace(study, heads={"lda": [lda()]}), both=["none", "blur"])
    none, blur = (Plain(study, ["one.a"], condition) for condition in ("none", "blur"))
    learnt = np.concatenate([none.x[none.train], blur.x[none.train]])
    plain = lda().fit(learnt, np.tile(none.label[none.train], 2))
    [(scores, _)] = fitted(study, cell(condition="both"))
    expected = plain.decision_function(none.x[none.held])
    np.testing.assert_allclose(scores["none"], expected, rtol=1e-4, atol=1e-5)


TESTED_ON_BETA = ("test", "dataset", "beta")


def test_fit_cells__test_labels_and_other_datasets_decide_nothing(study: Study) -> None:
    frame = study.frames[0]
    elsewhere = (frame["split"] == "test") | (frame["dataset"] == "gamma")
    turned = elsewhere & (frame["label"] >= 0)
    flipped = frame.assign(label=np.where(turned, 1 - frame["label"], frame["label"]))
    other = replace(study, frames={0: flipped}, folder=study.folder.with_name("other"))
    cells = [cell(name, reduction="pca") for name in HEADS]
    for (scores, info), (same, same_info) in zip(
        fitted(study, *cells), fitted(other, *cells), strict=True
    ):
        np.testing.assert_array_equal(scores["none"], same["none"])
        assert {k: info[k] for k in ("head", "reduction")} == {
            k: same_info[k] for k in ("head", "reduction")
        }


def test_fit_cells__the_condition_of_training_is_always_scored(tmp_path: Path) -> None:
    study = example(tmp_path, use=["train"])
    [(scores, _)] = fitted(study, cell(condition="blur"))
    assert list(scores) == ["blur", "none"]  # the threshold is chosen under the first
    [(scores, _)] = fitted(example(tmp_path, use=["test"]), cell())
    assert list(scores) == ["none", "blur"]
    assert np.abs(scores["none"] - scores["blur"]).max() > 0.01


def test_split_rows__each_image_once(study: Study) -> None:
    frame = study.frames[0]
    rows = split_rows(frame, study.training_sets["combined"], "train")
    assert not frame["path"].iloc[rows].duplicated().any()
    assert set(frame["split"].iloc[rows]) == {"train"}
    labelled = frame[(frame["split"] == "train") & (frame["label"] >= 0)]
    assert set(frame["path"].iloc[rows]) == set(labelled["path"])
    # a real image that alpha has first is beta's own as well
    beta = split_rows(frame, study.training_sets["beta"], "train")
    assert set(frame["dataset"].iloc[beta]) == {"beta"}
    assert (frame["label"].iloc[beta] == 0).sum() == 24


def test_held_out_rows__known_labels_of_validation_and_test(study: Study) -> None:
    held = study.frames[0].iloc[held_out_rows(study.frames[0])]
    assert set(held["split"]) == {"val", "test"}
    assert set(held["label"]) == {0, 1}
    assert len(held) == len(Plain(study, ["one.a"]).held)


@pytest.mark.parametrize("reduction", ["none", "pca"])
@pytest.mark.parametrize("head", list(HEADS))
def test_fit_head__scores_as_the_cell(study: Study, head: str, reduction: str) -> None:
    chosen = cell(head, features=tuple(PARTS), reduction=reduction, train_set="combined")
    [(scores, info)] = fitted(study, chosen)
    head = fit_head(chosen, study)[0]
    rows = held_out_rows(study.frames[0])
    again = head.score(study.features["none"].matrix(PARTS, rows))
    np.testing.assert_allclose(again, scores["none"], rtol=1e-6, atol=1e-6)
    assert [layer.name for layer in head.spec] == PARTS
    assert set(head.origin.backbones) == {"one", "two"}
    assert head.origin.precision == "bf16-mixed"
    assert head.origin.preprocess == {"is": "none"}
    assert info["head"]["step"] == "estimator"


def test_fit_cells__nested_scores_of_plain_sklearn(tmp_path: Path) -> None:
    """Two sources and three families make two folds; the candidates are rated on them."""
    study = example(
        tmp_path,
        conditions=("none",),
        heads=HEADS,
        train_on=("combined", "leave_one_family_out"),
        nested=True,
    )
    for name in ("combined", "without family g2"):
        each = cell("probe", train_set=name)
        ((scores, info),) = fitted(study, each)
        plain, frame = Plain(study, ["one.a"]), study.frames[0]
        folds = study.folds(each)
        training_set = study.training_sets[each.train_set]
        learnt = training_set.rows & frame["split"].isin(["train", "val"]).to_numpy()
        assert folds.count == 2
        assert ((folds.validated >= 0) == learnt).all()
        once = ~frame["path"].where(learnt).duplicated().to_numpy()
        found = {}
        for c in CS:
            expected, merits = np.zeros(len(frame)), []
            for fold in range(folds.count):
                plain.train = np.flatnonzero(folds.learnt(fold) & once)
                plain.val = np.flatnonzero((folds.validated == fold) & once)
                score = plain.fit(LogisticRegression(C=c, max_iter=2000))
                expected[folds.validated == fold] = score[folds.validated == fold]
                merits.append(plain.merit(score))
            plain.train = np.flatnonzero(learnt & once)
            score = plain.fit(LogisticRegression(C=c, max_iter=2000))
            expected[~learnt] = score[~learnt]
            found[c] = (tuple(np.mean(merits, axis=0)), expected)
        best = max(found, key=lambda c: found[c][0])
        assert info["head"]["params"]["C"] == best
        known = np.flatnonzero(frame["label"] >= 0)
        assert (study.scored_rows(each) == known).all()
        np.testing.assert_allclose(scores["none"], found[best][1][known], atol=2e-3)
        threshold, _ = study.operating_point(each, scores)
        splits = study.splits(each)
        assert set(frame["split"][known[splits == "test"]]) >= {"test"}
        for name in ("alpha+beta", "gamma"):
            own = (splits == "val") & (frame["source"].iloc[known] == name).to_numpy()
            assert np.mean(scores["none"][own] > threshold) <= 0.05


def test_fit_cells__nested_needs_two_sources_or_groups(tmp_path: Path) -> None:
    study = example(tmp_path, nested=True)
    frame = study.frames[0].replace({"family": {"g1": "h", "g2": "h"}})
    frame = frame.assign(group="one").replace({"source": {"gamma": "alpha+beta"}})
    study = replace(study, frames={0: frame})
    (outcome,) = fit_cells(study, [cell(train_set="combined")])
    assert "two sources of photographs" in str(outcome.cause)


def test_fit_head__operating_point_of_its_own_validation_images(tmp_path: Path) -> None:
    study = example(tmp_path, use=["train", "both"], heads=HEADS)
    chosen = cell("svm", train_set="beta", condition="blur")
    [(scores, _)] = fitted(study, chosen)
    head = fit_head(chosen, study)[0]
    plain = Plain(study, ["one.a"], "blur")
    val = plain.rows("beta", "val")
    score, truth = scores["blur"][np.isin(plain.held, val)], plain.label[val]
    # by a search through all cuts, and by sklearn's Platt scaling
    cuts = [0.0, *((a + b) / 2 for a, b in pairwise(np.unique(score)))]
    gains = np.array([balanced_accuracy_score(truth, score > cut) for cut in cuts])
    best = [cut for cut, gain in zip(cuts, gains, strict=True) if gain == gains.max()]
    assert head.threshold == pytest.approx(min(best, key=abs), abs=1e-12)
    scaling = _SigmoidCalibration().fit(score, truth)
    assert head.calibration == pytest.approx((-scaling.a_, -scaling.b_), rel=1e-3)
    assert head.threshold != 0
    # the same that the tables are computed with
    rows = Judge(study, metric="auroc", replicates=2).decisions(chosen, scores)
    assert set(rows["threshold"]) == {head.threshold}


def test_fit_cells__a_failure_is_reported_and_stops_no_other(study: Study) -> None:
    heads = {"bad": [pipeline(Raises())], "lda": [lda()]}
    broken = replace(study, heads=heads, reductions={"none": [], "pca": [pca(99)]})
    cells = [cell(name) for name in heads]
    outcomes = fit_cells(broken, cells)
    assert [outcome.cause for outcome in outcomes] == [
        "RuntimeError: no fit",
        None,
    ]
    group = [cell(name, reduction="pca") for name in ("lda", "bad")]
    causes = [outcome.cause for outcome in fit_cells(broken, group)]
    assert causes[0] == causes[1]
    assert "n_components=99" in str(causes[0])
    assert CellStore(broken.folder).finished() == {broken.key(cells[1])}


def trained_bottleneck(file: Path, layer: str, dim: int, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = Bottleneck(dim, hidden_dims=[8], code_dim=3)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    features = [{"name": layer, "dim": dim, "fingerprint": "ab" * 32}]
    torch.save({"state_dict": state, "dfl": {"features": features}}, file)
    return file


def test_fit_cells__behind_a_stored_bottleneck(tmp_path: Path) -> None:
    files = [trained_bottleneck(tmp_path / f"{n}.ckpt", "one.a", 6, n) for n in range(2)]
    study = example(
        tmp_path, conditions=["none"], reductions={"ae": [bottleneck(f) for f in files]}
    )
    [(scores, info)] = fitted(study, cell(reduction="ae"))
    plain = Plain(study, ["one.a"])
    found = []
    for file in files:
        code = BottleneckEncoder.from_checkpoint(file).transform(plain.x)
        code = StandardScaler().fit(code[plain.train]).transform(code)
        found.append(plain.fit_on(code, lda()[-1]))
    best = max(found, key=plain.merit)
    np.testing.assert_allclose(scores["none"], best[plain.held], rtol=1e-4, atol=1e-4)
    name = files[[score is best for score in found].index(True)].name
    assert info["reduction"][0]["params"]["checkpoint"].startswith(f"{name} sha256:")

    save_head(fit_head(cell(reduction="ae"), study)[0], tmp_path / "head")
    again = load_head(tmp_path / "head").score(plain.x)
    np.testing.assert_allclose(again[plain.held], scores["none"], rtol=1e-5, atol=1e-5)

    keys = study.key(cell(reduction="ae"))
    trained_bottleneck(files[0], "one.a", 6, seed=7)
    assert opened_anew(study).key(cell(reduction="ae")) != keys


def test_fit_cells__a_bottleneck_of_other_features_of_the_same_width(tmp_path: Path) -> None:
    file = trained_bottleneck(tmp_path / "b.ckpt", "one.z", 6)
    study = example(tmp_path, conditions=["none"], reductions={"ae": [bottleneck(file)]})
    (outcome,) = fit_cells(study, [cell(reduction="ae")])
    assert "the bottleneck does not fit the features" in str(outcome.cause)


def test_input__a_bottleneck_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"b\.ckpt: no such checkpoint"):
        example(tmp_path, reductions={"ae": [bottleneck(tmp_path / "b.ckpt")]})


def test_seeded__every_step_that_draws_numbers() -> None:
    made = seeded(random_forest(seed=1), 7)
    assert made[-1].random_state == 7
    assert seeded(pca(2), 7)[-1].random_state == 7
    assert seeded(lda(), 7)[-1].get_params() == lda()[-1].get_params()


def test_merit__equally_good_is_exactly_equal() -> None:
    label = np.repeat([0, 1], [8, 12])
    merits = set()
    for wrong in range(12):  # one of the 96 pairs of images is the wrong way round, at any place
        score = np.r_[np.arange(-8.0, 0), np.arange(12.0)]
        score[8 + wrong] = -1.0 - 0.5 * (wrong > 5)  # or level with it
        merits.add(_merit(score, label))
    assert {auroc for auroc, *_ in merits} == {1 - 1 / 96 / 2, 1 - 1 / 96}


def test_merit__classes_further_apart_are_better_where_all_is_right() -> None:
    label = np.repeat([0, 1], 6)
    noise = np.tile(np.linspace(-1, 1, 6), 2)
    near, far = (_merit(noise + gap * (label - 0.5), label) for gap in (3.0, 30.0))
    assert near[:2] == far[:2] == (1, 1)
    assert far > near


def test_merit__of_one_class_or_no_row() -> None:
    assert _merit(np.ones(3), np.ones(3, dtype=np.int64)) == (0, 0, 0)
    assert _merit(np.empty(0), np.empty(0, dtype=np.int64)) == (0, 0, 0)


def test_input__a_head_without_candidates(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"heads\.lda: no candidate; give at least one"):
        replace(study, heads={"lda": []})


def test_fit_head__sees_images_as_it_was_judged_on_them(tmp_path: Path) -> None:
    study = example(tmp_path, use=["train"])
    head = fit_head(cell(condition="blur"), study)[0]
    assert head.origin.preprocess == {"is": "none"}
    both = example(tmp_path, use=["both"])
    assert fit_head(cell(condition="blur"), both)[0].origin.preprocess == {"is": "blur"}
