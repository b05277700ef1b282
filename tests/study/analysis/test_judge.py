"""The judge against a slow reference: sklearn, and rows that are repeated one by one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
)

from dfl.evaluation import METRICS, group_weights
from dfl.study.analysis.judge import AXES, Judge, judge_cells
from dfl.study.design.training_sets import held_out_rows, training_sets
from dfl.study.run.cells import CellStore
from dfl.study.run.study import Study
from dfl.study.run.workers import LocalWorkers
from tests.evaluation.reference import reference
from tests.study.study_examples import cell, example

B = 40
UNSEEN = "mean of what it was not trained on"
CHECKED = (
    "accuracy",
    "accuracy_at_val_threshold",
    "balanced_accuracy",
    "ap",
    "auroc",
    "tpr_at_fpr_5",
)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return example(tmp_path, seeds=(0, 1))


def made_scores(study: Study, conditions=("none",), seed: int = 0) -> dict[str, np.ndarray]:
    """Scores that follow the path, so that an image has the same one in every dataset."""
    rows = study.frames[seed].iloc[held_out_rows(study.frames[seed])]
    _, code = np.unique(rows["path"], return_inverse=True)
    found = {}
    for n, condition in enumerate(conditions):
        noise = np.random.default_rng(n).normal(size=code.max() + 1)[code]
        found[condition] = np.round(noise + 0.9 * rows["label"].to_numpy() - 0.2 + n, 1)
    return found


def held(study: Study, scores: dict[str, np.ndarray], condition: str = "none") -> pd.DataFrame:
    return study.frames[0].iloc[held_out_rows(study.frames[0])].assign(score=scores[condition])


def slow_threshold(rows: pd.DataFrame) -> float:
    """The threshold by trying all of them; equally good ones: the nearest to 0."""
    values = np.unique(rows["score"])
    cuts = [0.0, *((values[1:] + values[:-1]) / 2), values[-1], np.nextafter(values[0], -np.inf)]
    merit = [round(balanced_accuracy_score(rows["label"], rows["score"] > c), 12) for c in cuts]
    best = [cut for cut, value in zip(cuts, merit, strict=True) if value == max(merit)]
    return min(best, key=lambda cut: (abs(cut), cut))


def slow_metrics(rows: pd.DataFrame, threshold: float) -> dict[str, float]:
    values = reference(rows["score"].to_numpy(), rows["label"].to_numpy(), threshold=threshold)
    return {name: values[name] for name in CHECKED}


def resampled(rows: pd.DataFrame, replicate: int) -> pd.DataFrame:
    """Repeat each row as often as its group is drawn."""
    weights = group_weights(rows["group"].tolist(), replicates=B, seed=0)[replicate]
    return rows.loc[rows.index.repeat(weights)]


def row_of(rows: list[dict[str, object]], split: str, scope: str, name: str) -> dict[str, object]:
    (row,) = [r for r in rows if (r["split"], r["scope"], r["name"]) == (split, scope, name)]
    return row


def mean(stacked: np.ndarray) -> np.ndarray:
    """The mean over datasets; one that has no value in a replicate is passed over."""
    return pd.DataFrame(stacked).mean().to_numpy()


def slow_sets(table: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    table = table[table["split"] == "test"]
    once = table.drop_duplicates("path")
    sets = {("dataset", d): table[table["dataset"] == d] for d in ("alpha", "beta", "gamma")}
    real = once["label"] == 0
    sets["generator", "h"] = once[(real & (once["path"].str[0] == "r")) | (once.generator == "h")]
    sets["generator", "g1"] = once[real | (once["generator"] == "g1")]
    sets["pooled", "all images"] = once
    return sets


def test_judge__every_set_and_replicate_as_sklearn_on_repeated_rows(study: Study) -> None:
    scores = made_scores(study)
    table = held(study, scores)
    own = table[(table["split"] == "val") & (table["dataset"] == "alpha")]
    threshold = slow_threshold(own)
    values = Judge(study, metric="auroc", replicates=B).values(cell(), scores)
    for (scope, name), rows in slow_sets(table).items():
        found = values["none", "test", scope, name]
        assert found["n_real"][0] == (rows["label"] == 0).sum()
        assert found["n_fake"][0] == (rows["label"] == 1).sum()
        for place, sample in [(0, rows), *((r + 1, resampled(rows, r)) for r in (0, 7, B - 1))]:
            for metric, value in slow_metrics(sample, threshold).items():
                np.testing.assert_allclose(found[metric][place], value, atol=1e-12, err_msg=metric)
    assert {len(found["auroc"]) for key, found in values.items() if key[1] == "val"} == {1}


def test_judge__rows_hold_values_and_percentiles(study: Study) -> None:
    scores, judge = made_scores(study), Judge(study, metric="ap", replicates=B)
    rows, replicates = judge(cell(), scores)
    values = judge.values(cell(), scores)
    tested = [row for row in rows if row["split"] == "test"]
    assert replicates.shape == (len(tested), B)
    for row in rows:
        if row["split"] == "val":
            ends = [row[f"{name}_{end}"] for name in METRICS for end in ("low", "high")]
            assert np.isnan(ends).all()
    for row, kept in zip(tested, replicates, strict=True):
        of = values[row["test_condition"], row["split"], row["scope"], row["name"]]
        assert {row[name] for name in ("grid", "head", "train_set")} == {
            "frozen",
            "lda",
            "alpha",
        }
        np.testing.assert_allclose(kept, of["ap"][1:], rtol=1e-6)
        for metric in METRICS:
            assert row[metric] == of[metric][0]
            low, high = np.nanquantile(of[metric][1:], [0.025, 0.975])
            if metric == "calibration_error":  # resampling biases it
                low, high = np.nan, np.nan
            ends = row[f"{metric}_low"], row[f"{metric}_high"]
            assert ends == pytest.approx((low, high), nan_ok=True)


@pytest.mark.parametrize("train_set", ["alpha", "combined"])
def test_judge__summaries_of_the_datasets(study: Study, train_set: str) -> None:
    values = Judge(study, metric="ap", replicates=B).values(
        cell(train_set=train_set), made_scores(study)
    )
    of = {key[2:]: found for key, found in values.items() if key[1] == "test"}
    datasets = {name: of["dataset", name] for name in ("alpha", "beta", "gamma")}
    for metric in METRICS:
        stacked = np.stack([datasets[name][metric] for name in datasets])
        worst = (
            np.fmax.reduce(stacked) if METRICS[metric].lower_is_better else np.fmin.reduce(stacked)
        )
        np.testing.assert_allclose(of["macro", "mean of datasets"][metric], mean(stacked))
        np.testing.assert_allclose(of["worst", "worst dataset"][metric], worst)
        seen = stacked if train_set == "combined" else stacked[:1]
        np.testing.assert_allclose(of["seen", "mean of what it was trained on"][metric], mean(seen))
        if train_set == "alpha":
            unseen = of["unseen", "mean of what it was not trained on"][metric]
            np.testing.assert_allclose(unseen, mean(stacked[1:]))
    assert (train_set == "alpha") == any(scope == "unseen" for scope, _ in of)


def test_judge__calibration_is_fitted_on_own_validation(study: Study) -> None:
    scores = made_scores(study)
    table = held(study, scores)
    own = table[(table["split"] == "val") & (table["dataset"] == "alpha")]
    # Platt's targets as weights of both labels, and hardly any penalty
    fakes, reals = (own["label"] == 1).sum(), (own["label"] == 0).sum()
    target = np.where(own["label"] == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))
    x = own["score"].to_numpy()[:, None]
    model = LogisticRegression(C=1e8, tol=1e-10, max_iter=5000).fit(
        np.vstack([x, x]),
        np.repeat([1, 0], len(x)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    gamma = table[(table["split"] == "test") & (table["dataset"] == "gamma")]
    prob = model.predict_proba(gamma["score"].to_numpy()[:, None])[:, 1]
    bins = np.minimum((prob * 15).astype(int), 14)
    error = sum(abs((prob - gamma["label"].to_numpy())[bins == b].sum()) for b in range(15)) / len(
        prob
    )
    values = Judge(study, metric="ap", replicates=2).values(cell(), scores)
    found = values["none", "test", "dataset", "gamma"]["calibration_error"][0]
    assert found == pytest.approx(error, abs=1e-5)


def test_judge__nothing_is_chosen_on_test_rows_or_on_others_validation(study: Study) -> None:
    scores = made_scores(study)
    frame = study.frames[0]
    mine = (frame["split"] == "val") & (frame["dataset"] == "alpha")
    turned = ~mine & ~(frame["path"].isin(frame["path"][mine])) & (frame["label"] >= 0)
    flipped = frame.assign(label=np.where(turned, 1 - frame["label"], frame["label"]))
    other = replace(study, frames={0: flipped})
    before = Judge(study, metric="ap", replicates=2).values(cell(), scores)
    after = Judge(other, metric="ap", replicates=2).values(cell(), scores)
    for name in ("alpha", "beta", "gamma"):
        first, second = (v["none", "test", "dataset", name] for v in (before, after))
        # every test label is the other one: so is every decision right that was wrong
        assert first["accuracy_at_val_threshold"][0] == pytest.approx(
            1 - second["accuracy_at_val_threshold"][0]
        )
        assert first["accuracy_at_val_threshold"][0] != 0.5
    # and scores of other rows do not move the threshold
    moved = {"none": np.where(held(study, scores).index.isin(frame.index[mine]), 0, 50.0)}
    moved["none"] += scores["none"]
    tests = Judge(study, metric="ap", replicates=2).decisions(cell(), moved)
    same = Judge(study, metric="ap", replicates=2).decisions(cell(), scores)
    assert tests["threshold"].iloc[0] == same["threshold"].iloc[0]


def test_judge__threshold_under_the_condition_of_training(tmp_path: Path) -> None:
    study = example(tmp_path, use=["both", "train"])
    scores = made_scores(study, ["none", "blur"])  # those of blur are higher by 1
    chosen = cell(condition="blur")
    values = Judge(study, metric="ap", replicates=2).values(chosen, scores)
    assert {key[0] for key in values} == {"blur", "none"}
    blurred = held(study, scores, "blur")
    own = blurred[(blurred["split"] == "val") & (blurred["dataset"] == "alpha")]
    threshold = slow_threshold(own)
    for condition in ("blur", "none"):
        table = held(study, scores, condition)
        rows = table[(table["split"] == "test") & (table["dataset"] == "beta")]
        found = values[condition, "test", "dataset", "beta"]["accuracy_at_val_threshold"][0]
        assert found == accuracy_score(rows["label"], rows["score"] > threshold)


def test_judge__one_class_only(study: Study) -> None:
    frame = study.frames[0]
    keep = ~((frame["dataset"] == "gamma") & (frame["label"] == 0))
    one = replace(study, frames={0: frame[keep].reset_index(drop=True)})
    one = replace(
        one,
        training_sets={
            name: replace(s, rows=s.rows[keep.to_numpy()])
            for name, s in study.training_sets.items()
        },
    )
    rows, _ = Judge(one, metric="auroc", replicates=B)(cell(), made_scores(one))
    gamma = row_of(rows, "test", "dataset", "gamma")
    assert 0 <= gamma["accuracy_at_val_threshold_low"] <= gamma["accuracy_at_val_threshold"] <= 1
    assert np.isfinite(gamma["calibration_error"])
    assert np.isnan([gamma["auroc"], gamma["ap"], gamma["eer"], gamma["auroc_low"]]).all()
    assert gamma["n_real"] == 0
    macro = row_of(rows, "test", "macro", "mean of datasets")
    two = [row_of(rows, "test", "dataset", name)["auroc"] for name in ("alpha", "beta")]
    assert macro["auroc"] == pytest.approx(np.mean(two))


def test_decisions__each_test_image_once_under_images_as_they_come(tmp_path: Path) -> None:
    study = example(tmp_path, use=["both", "train"])
    scores = made_scores(study, ["none", "blur"])
    judge = Judge(study, metric="ap", replicates=2)
    table = judge.decisions(cell(condition="blur"), scores)
    expected = held(study, scores, "none")
    expected = expected[expected["split"] == "test"].drop_duplicates("path")
    assert table["path"].tolist() == expected["path"].tolist()
    np.testing.assert_array_equal(table["score"], expected["score"])
    right = (table["score"] > table["threshold"]) == (table["label"] == 1)
    assert table["correct"].tolist() == right.tolist()
    assert example(tmp_path).judged_condition(cell(condition="blur")) == "blur"


def test_judge__without_a_generator_it_is_unseen_wherever_it_occurs(tmp_path: Path) -> None:
    # g1 makes all fakes of gamma, and some of alpha's
    study = example(tmp_path, train_on=["all_but_one_generator"])
    values = Judge(study, metric="ap", replicates=2).values(
        cell(train_set="without g1"), made_scores(study)
    )
    of = {key[2:]: found for key, found in values.items() if key[1] == "test"}
    known = np.stack([of["generator", name]["ap"] for name in ("g2", "h")])
    np.testing.assert_allclose(of["seen", "mean of what it was trained on"]["ap"], mean(known))
    np.testing.assert_allclose(
        of["unseen", "mean of what it was not trained on"]["ap"], of["generator", "g1"]["ap"]
    )


def test_judge_cells__as_one_by_one_in_order(study: Study) -> None:
    store = CellStore(study.folder)
    cells = [cell(name, seed=seed) for seed in (1, 0) for name in ("lda", "bayes")]
    keys = {c: f"{n:032x}" for n, c in enumerate(cells)}
    expected, kept = [], []
    judge = Judge(study, metric="auroc", replicates=B)
    for n, c in enumerate(cells):
        scores = {k: v + 0.1 * n for k, v in made_scores(study, seed=c.seed).items()}
        store.keep(keys[c], c, scores, {})
        rows, replicates = judge(c, scores)
        expected += rows
        kept.append(replicates)
    with LocalWorkers(1) as workers:
        results = judge_cells(cells, keys, study, workers, metric="auroc", replicates=B)
    pd.testing.assert_frame_equal(results.table, pd.DataFrame(expected))
    np.testing.assert_array_equal(results.replicates, np.concatenate(kept))
    assert list(results.table.columns[: len(AXES)]) == list(AXES)


def test_judge__what_was_left_out_is_tested_whole_and_apart(tmp_path: Path) -> None:
    study = example(
        tmp_path,
        train_on=["leave_one_family_and_source_out", "leave_one_family_out"],
        nested=True,
        matched=["gamma"],
    )
    chosen = cell(train_set="without family and source of gamma")
    frame, scored = study.frames[0], study.scored_rows(chosen)
    score = np.random.default_rng(0).normal(size=len(frame)) + frame["label"].to_numpy()
    score = score[pd.factorize(frame["path"])[0]]
    scores = dict.fromkeys(("none", "blur"), score[scored])
    values = Judge(study, metric="auroc", replicates=B).values(chosen, scores)
    own = frame.assign(score=score)[frame["label"] != -1]
    threshold, _ = study.operating_point(chosen, scores)

    gamma = own[own["dataset"] == "gamma"]  # both classes, whatever their split
    found = values["none", "test", "dataset", "gamma"]
    assert (found["n_real"][0], found["n_fake"][0]) == (20, 20)
    assert found["auroc"][0] == pytest.approx(reference(gamma["score"], gamma["label"])["auroc"])
    unseen = [values["none", "test", "dataset", name]["auroc"][0] for name in ("alpha", "gamma")]
    assert values["none", "test", "unseen", UNSEEN]["auroc"][0] == pytest.approx(np.mean(unseen))

    alone = values["none", "test", "source", "gamma"]
    real = gamma[gamma["label"] == 0]
    assert (alone["n_real"][0], alone["n_fake"][0]) == (20, 0)
    assert alone["fpr_at_val_threshold"][0] == pytest.approx((real["score"] > threshold).mean())

    # a new family against all photographs that test, each once
    family = own[(own["generator"] == "g1") & own["dataset"].isin(["alpha", "gamma"])]
    assert values["none", "test", "family", "g1"]["n_fake"][0] == len(family)

    without_g2 = cell(train_set="without family g2")
    scored = study.scored_rows(without_g2)
    known = Judge(study, metric="auroc", replicates=B).values(
        without_g2, dict.fromkeys(("none", "blur"), score[scored])
    )
    real = own[(own["label"] == 0) & (own["split"] == "test")].drop_duplicates("path")
    assert known["none", "test", "family", "g2"]["n_real"][0] == len(real)
    assert not [name for _, _, scope, name in known if scope == "source"]


def test_judge__copies_of_photographs_left_out_are_no_new_family(tmp_path: Path) -> None:
    study = example(tmp_path, conditions=["none"], train_on=["leave_one_source_out"], nested=True)
    frame = study.frames[0]
    frame.loc[frame["generator"] == "g1", "source"] = frame["source"].where(
        frame["label"] == 0, frame["dataset"].map({"alpha": "alpha+beta", "gamma": "gamma"})
    )
    study = replace(study, training_sets=training_sets(frame, ["leave_one_source_out"]))
    chosen = cell(train_set="without source gamma")
    scores = {"none": np.random.default_rng(0).normal(size=len(study.scored_rows(chosen)))}
    values = Judge(study, metric="auroc", replicates=B).values(chosen, scores)
    assert {name for _, _, scope, name in values if scope == "source"} == {"gamma"}
    assert not [name for _, _, scope, name in values if scope == "family"]


def test_judge__nested_validation_is_rated_on_matched_datasets(tmp_path: Path) -> None:
    study = example(
        tmp_path, conditions=["none"], train_on=["combined"], nested=True, matched=["gamma"]
    )
    chosen = cell(train_set="combined")
    frame, scored = study.frames[0], study.scored_rows(chosen)
    score = np.random.default_rng(0).normal(size=len(frame)) + frame["label"].to_numpy()
    judge = Judge(study, metric="auroc", replicates=B)
    values = judge.values(chosen, {"none": score[scored]})
    learnt = frame["split"].isin(["train", "val"]) & (frame["label"] >= 0)
    own = frame.assign(score=score)[learnt & (frame["dataset"] == "gamma")]
    assert {name for _, split, scope, name in values if scope == "fold"} == {"0"}
    found = values["none", "val", "fold", "0"]["auroc"][0]
    assert found == pytest.approx(reference(own["score"], own["label"])["auroc"])
    assert values["none", "val", "unseen", UNSEEN]["auroc"][0] == found
    plain = replace(study, matched=())
    values = Judge(plain, metric="auroc", replicates=B).values(chosen, {"none": score[scored]})
    assert {name for _, _, scope, name in values if scope == "fold"} == {"0", "1"}
