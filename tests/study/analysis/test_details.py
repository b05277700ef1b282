"""Details of cells whose scores are made up: one is right, one is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import auc

from dfl.data.manifest.manifest import Manifest
from dfl.evaluation import METRICS, mcnemar
from dfl.study.analysis.details import Details, TrainedConfiguration, has_several_generators
from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.judge import Judge, Results
from dfl.study.design.training_sets import held_out_rows
from dfl.study.run.cells import CellStore
from tests.study.study_examples import cell, example

GOOD = [cell("lda", condition="blur", seed=seed) for seed in (0, 1)]
POOR = [cell("bayes", condition="blur", seed=seed) for seed in (0, 1)]


@pytest.fixture
def details(tmp_path: Path) -> Details:
    study = example(tmp_path, seeds=(0, 1), use=["both", "train"])
    store, keys = CellStore(study.folder), {}
    judge = Judge(study, metric="auroc", replicates=100)
    rows, kept = [], []
    for n, c in enumerate([*GOOD, *POOR]):
        label = study.frames[c.seed].iloc[held_out_rows(study.frames[c.seed])]["label"].to_numpy()
        noise = np.random.default_rng(n).normal(size=(2, len(label)))
        # under blur both are equally good
        strength = [[3.0], [4.0 if c in GOOD else 0.5]]
        scores = dict(zip(("blur", "none"), noise + (label - 0.5) * strength, strict=True))
        keys[c] = f"{n:032x}"
        store.keep(keys[c], c, scores, {})
        found, replicates = judge(c, scores)
        rows += found
        kept.append(replicates)
    results = Results(pd.DataFrame(rows), np.concatenate(kept))
    return Details(judge, Estimator(results, "auroc", "none"), keys, store)


def test_comparison__under_the_first_condition(details: Details) -> None:
    found = details.comparison(
        TrainedConfiguration("good", GOOD), TrainedConfiguration("poor", POOR)
    )
    assert (found["a"], found["b"]) == ("good", "poor")
    table = details._estimator.table
    table = table[(table["scope"] == "macro") & (table["split"] == "test")]
    table = table[table["test_condition"] == "none"]
    means = table.groupby("head")["auroc"].mean()
    assert found["difference"] == pytest.approx(means["lda"] - means["bayes"])
    assert found["difference"] > 0.2
    assert found["low"] < found["difference"] < found["high"]
    tables = [details.decisions(c[0]) for c in (GOOD, POOR)]
    right = [table["correct"].to_numpy() for table in tables]
    assert found["mcnemar_p"] == mcnemar(*right, groups=tables[0]["group"].tolist())


def test_metrics__mean_of_the_seeds_with_intervals(details: Details) -> None:
    table = details.metrics(TrainedConfiguration("good", GOOD)).set_index("test_set")
    assert {"alpha", "beta", "gamma", "pooled", "macro", "worst"} <= set(table.index)
    own = details._estimator.table
    own = own[(own["head"] == "lda") & (own["test_condition"] == "none")]
    own = own[(own["split"] == "test") & (own["name"] == "beta")]
    for metric in METRICS:
        row = table.loc["beta"]
        assert row[metric] == pytest.approx(own[metric].mean())
        if metric == "calibration_error":
            assert np.isnan([row[f"{metric}_low"], row[f"{metric}_high"]]).all()
        else:
            assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]


def test_roc_curves__by_name(details: Details) -> None:
    curves = details.roc_curves(
        [TrainedConfiguration("good", GOOD), TrainedConfiguration("poor", POOR)]
    )
    area = {name: auc(fpr, tpr) for name, (fpr, tpr) in curves.items()}
    assert area["good"] > 0.95 > area["poor"]


def test_hardest__what_is_there(details: Details, tmp_path: Path) -> None:
    table = details.decisions(POOR[0])
    threshold = table["threshold"].iloc[0]
    margin = (table["score"] - threshold) * np.where(table["label"] == 1, 1, -1)
    worst = table["path"][margin.sort_values(kind="stable").index].tolist()
    for name in worst[1:4]:
        Image.new("RGB", (300, 200)).save(tmp_path / name)
    found = details.hardest(TrainedConfiguration("poor", POOR), Manifest(table, tmp_path), 5)
    assert [image.caption for image in found] == worst[1:4]  # the very worst has no file
    assert all(image.label != image.verdict for image in found)
    assert all(image.jpeg.startswith(b"\xff\xd8") for image in found)


def test_comparison__in_the_seeds_that_both_have(details: Details) -> None:
    """Another seed has other test images: one that failed must not be compared with them."""
    both = details.comparison(
        TrainedConfiguration("good", GOOD[1:]), TrainedConfiguration("poor", POOR[1:])
    )
    for good, poor in ((GOOD, POOR[1:]), (GOOD[1:], POOR)):
        found = details.comparison(
            TrainedConfiguration("good", good), TrainedConfiguration("poor", poor)
        )
        assert found == both
    assert (
        details.comparison(
            TrainedConfiguration("good", GOOD[:1]), TrainedConfiguration("poor", POOR[1:])
        )
        is None
    )


@pytest.mark.parametrize(
    ("generators", "several"), [(["g", "g", "h"], False), (["g", "k", "h"], True)]
)
def test_several_generators__of_a_dataset(generators: list[str], several: bool) -> None:
    frame = pd.DataFrame(
        {
            "label": [0, 1, 1, 1, 0],
            "dataset": ["a", "a", "a", "b", "c"],  # c has real images alone
            "generator": ["real", *generators, "real"],
        }
    )
    assert has_several_generators(frame) == several
