from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dfl.data import Tree
from dfl.data.manifest.manifest import Manifest
from dfl.heads.estimators.reductions import bottleneck, pca
from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.judge import Results
from dfl.study.analysis.notes import notes
from dfl.study.design.training_sets import training_sets
from tests.data.sources.image_pairs import write_pair
from tests.study.study_examples import example


def said(study, manifest: Manifest | None = None) -> str:
    table = pd.DataFrame({"split": ["test"], "seed": [0]})
    estimator = Estimator(Results(table, np.zeros((1, 2), np.float32)), "auroc", "none")
    return "\n".join(notes(study, estimator, manifest or Manifest(study.frame, Path("gone"))))


def test_notes__a_format_that_gives_the_class_away(tmp_path: Path) -> None:
    write_pair(tmp_path / "images", "a", {}, {"ending": "png"})
    manifest = Tree(tmp_path / "images").scan()
    text = said(example(tmp_path / "study", conditions=["none"]), manifest)
    assert "a: the format of a file alone tells real from fake (real: JPEG; fake: PNG)" in text


def test_notes__a_reduction_that_was_trained_before(tmp_path: Path) -> None:
    file = tmp_path / "b.ckpt"
    torch.save({}, file)
    study = example(
        tmp_path, conditions=["none"], reductions={"pca": [pca(2)], "ae": [bottleneck(file)]}
    )
    assert "The reduction ae was trained before this study" in said(study)
    study = example(tmp_path, conditions=["none"], reductions={"pca": [pca(2)]})
    assert "was trained before" not in said(study)


def test_notes__few_groups(tmp_path: Path) -> None:
    text = said(example(tmp_path, conditions=["none"]))
    frame = example(tmp_path, conditions=["none"]).frames[0]
    test = frame[(frame["split"] == "test") & (frame["dataset"] == "beta")]
    assert f"beta is tested on {test['group'].nunique()} groups of images" in text
    assert "and other intervals are too narrow" in text


def test_notes__what_may_flatter_and_what_leaving_out_has_cost(tmp_path: Path) -> None:
    study = example(tmp_path, conditions=["none"], matched=["gamma"])
    assert "alpha, beta: not known to be matched; subjects or pipeline may give" in said(study)
    assert "one family" not in said(study)
    study = example(
        tmp_path,
        conditions=["none"],
        train_on=["leave_one_source_out", "leave_one_family_out"],
        nested=True,
    )
    frame = study.frame
    made_by_h = frame.index[frame["generator"] == "h"]
    frame.loc[made_by_h[0], "group"] = frame["group"][frame["generator"] == "g1"].iloc[0]
    sets = training_sets(frame, ["leave_one_source_out", "leave_one_family_out"])
    text = said(replace(study, training_sets=sets))
    assert "without family h: 2 images share a prompt or a photograph" in text
    assert "without source gamma: all photographs are of one source" in text
    assert "all fakes are of one family" not in text
    nothing = "No dataset that is known to be matched was left out with its family and source"
    assert nothing in text
    study = example(
        tmp_path,
        conditions=["none"],
        train_on=["leave_one_family_and_source_out"],
        nested=True,
        matched=["gamma"],
    )
    assert nothing not in said(study)


def test_notes__reconstructions_without_draws(tmp_path: Path) -> None:
    study = example(tmp_path, conditions=["none"])
    assert "reconstructions" not in said(study)
    frame = study.frames[0].copy()
    learnt = frame[frame["split"] == "train"]
    photographs = learnt["group"][learnt["label"] == 0].unique()[:3]
    fakes = learnt.index[learnt["generator"] == "g2"][:3]
    frame.loc[fakes, "group"] = photographs
    pairs = replace(study, frames={0: frame})
    text = said(pairs)
    assert "3 generated images that are learnt from are of a group with photographs" in text
    assert "as reconstructions are (g2)" in text
    assert "reconstructions" not in said(replace(pairs, draws={"degraded": ["none"]}))
