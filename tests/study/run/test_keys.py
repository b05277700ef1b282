"""A cell's name changes with everything that decides its scores, and with nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfl.heads.estimators import lda, naive_bayes, prototypes
from dfl.heads.estimators.reductions import pca
from dfl.study.design.training_sets import training_sets
from dfl.study.run.cells import CellStore, cell_key
from tests.study.study_examples import cell, describe_anew, example, images, opened_anew


def key(study, of=None) -> str:
    return study.key(of or cell())


@pytest.fixture
def study(tmp_path: Path):
    return example(tmp_path, reductions={"none": [], "pca": [pca(2)]})


def test_keys__every_choice_has_its_own(study) -> None:
    study = replace(study, frames={0: images(0), 1: images(1)})
    cells = [
        cell(),
        cell("bayes"),
        cell(reduction="pca"),
        cell(train_set="beta"),
        cell(condition="blur"),
        cell(seed=1),
        cell(features=("one.b",)),
        cell(features=("one.a", "one.b")),
    ]
    assert len({key(study, c) for c in cells}) == len(cells)


@pytest.mark.parametrize(
    "changed",
    [
        {"heads": {"lda": [lda(shrinkage=0.1)]}},
        {"heads": {"lda": [lda(), naive_bayes()]}},
        {"reductions": {"none": [pca(2)]}},
        {"conditions": {"none": ["none", "blur"]}},
        {"frames": {0: images(1)}},
        {"frames": {0: images().assign(label=lambda t: t["label"].where(t.index > 0, 1))}},
        {"training_sets": training_sets(images().query("generator != 'g2'"), ["each"])},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_keys__of_what_decides_scores(study, changed) -> None:
    assert key(replace(study, **changed)) != key(study)


def test_keys__of_draws(study) -> None:
    def drawn(*learnt: str) -> str:
        conditions = {**study.conditions, "drawn": ["none"]}
        return key(
            replace(study, draws={"drawn": learnt}, conditions=conditions), cell(condition="drawn")
        )

    every = [drawn("none"), drawn("blur"), drawn("none", "blur"), drawn("none", "none"), key(study)]
    assert len(set(every)) == len(every)
    assert key(replace(study, draws={"drawn": ["blur"]})) == key(study)


def test_keys__of_nothing_else(study, tmp_path: Path) -> None:
    more = replace(
        study,
        heads={"other": [naive_bayes()], "renamed": [lda()]},
        frames={0: images(0), 7: images(2)},
        folder=tmp_path / "elsewhere",
    )
    assert key(more, cell("renamed", grid="another")) == key(study)


def test_keys__of_what_kind_images_are_where_a_head_asks(study) -> None:
    study = replace(study, heads={"lda": [lda()], "kinds": [prototypes()]})
    family = images()["generator"].replace({"g1": "g", "g2": "g"})
    other = replace(study, frames={0: images().assign(family=family)})

    assert key(other) == key(study)
    assert key(other, cell("kinds")) != key(study, cell("kinds"))


def test_keys__features(study, tmp_path: Path) -> None:
    before = key(study)
    other = key(study, cell(features=("two.pooled",)))
    describe_anew(study.features["none"].folders["one"], '"one none"', '"other images"')
    assert key(opened_anew(study)) != before
    assert key(opened_anew(study), cell(features=("two.pooled",))) == other


def test_cell_store__keeps_and_reads(tmp_path: Path) -> None:
    store = CellStore(tmp_path / "cells")
    assert store.finished() == set()
    name = cell_key(cell().seed, {})
    scores = {"none": np.array([0.5, -1e300]), "blur": np.empty(0)}
    store.keep(name, cell(), scores, {"seconds": 1.5})
    (tmp_path / "cells" / ".partial.npz").touch()
    assert store.finished() == {name}
    found, info = store.read(name)
    assert list(found) == ["none", "blur"]
    np.testing.assert_array_equal(found["none"], scores["none"])
    assert info["seconds"] == 1.5
    assert info["cell"]["features"] == ["one.a"]
