import math
from pathlib import Path

from dfl.heads.estimators import lda, prototypes, scaled_blocks
from dfl.heads.estimators.reductions import pca
from dfl.study.run.plan import cell_seconds, forward_passes
from tests.study.study_examples import Raises, cell, example, pipeline


def test_forward_passes__counted_by_hand() -> None:
    cells = [
        cell("lda"),  # one backbone, tested under none and blur
        cell("svm", features=("one.a", "one.b")),  # two layers of one backbone
        cell("svm", features=("one.a", "two.pooled")),  # two backbones
        cell(
            "lda", features=("one.a", "two.pooled"), condition="blur"
        ),  # blur, and none for testing
    ]
    # each learns from 5 images and scores 3 others under two conditions
    folders = {
        ("none", "one"): 0,
        ("none", "two"): 3,
        ("blur", "one"): 10,
        ("blur", "two"): 10,
    }
    needed, done, saved = forward_passes(
        cells, images=10, folders=folders, needs=lambda cell: 5 + 2 * 3
    )
    assert (needed, done, saved) == (40, 17, (1 + 1 + 2 + 2) * (5 + 2 * 3) - 40)


def test_forward_passes__one_cell_saves_none() -> None:
    folders = {("none", "one"): 10}
    found = forward_passes([cell()], images=10, folders=folders, needs=lambda cell: 6 + 4)
    assert found == (10, 0, 0)


def test_cell_seconds__grows_with_cells_and_passes_over_what_fails(tmp_path: Path) -> None:
    study = example(
        tmp_path,
        heads={"lda": [lda()], "bad": [pipeline(Raises())], "kinds": [prototypes()]},
        reductions={
            "none": [],
            "pca": [pca(2)],
            "bad": [pca(9999)],
            "blocks": [scaled_blocks("added")],
        },
    )
    dims = {"one.a": 6, "one.b": 4}
    assert cell_seconds([], study, dims) == 0
    assert cell_seconds([cell("bad", reduction="bad")], study, dims) == 0
    found = cell_seconds([cell(), cell("lda", reduction="pca")], study, dims)
    assert math.isfinite(found)
    assert found > 0
    # what asks for kinds of images or layers is told of some
    assert cell_seconds([cell("kinds", reduction="bad")], study, dims) > 0
    assert cell_seconds([cell("bad", reduction="blocks")], study, dims) > 0
