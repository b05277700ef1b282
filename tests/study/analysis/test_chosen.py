"""What the table of cells says of each: only that in which candidates differ."""

from pathlib import Path

import pandas as pd
import pytest

from dfl.heads.estimators import lda, logistic_regression, naive_bayes, random_forest, rbf_svm
from dfl.heads.estimators.reductions import autoencoder, pca
from dfl.study.analysis.chosen import chosen_table
from dfl.study.design.grid import Cell
from dfl.study.run.cells import CellStore
from dfl.study.run.fitting import fit_cells
from dfl.study.run.study import Study
from tests.study.study_examples import cell, example

HEADS = {
    "probe": [logistic_regression(C=c) for c in (1e-4, 1.0)],
    "forest": [random_forest(n_estimators=2, seed=1), random_forest(n_estimators=3, seed=2)],
    "one": [lda()],
    "any": [naive_bayes(), rbf_svm(C=0.5), rbf_svm(C=2.0)],
}
REDUCTIONS = {
    "none": [],
    "pca": [pca(2, whiten=w) for w in (True, False)],
    "some": [
        pca(3),
        *(autoencoder(code_dim=d, hidden_dims=[4], tied=d > 1, epochs=1) for d in (1, 2)),
    ],
}


def table(study: Study, cells: list[Cell]) -> tuple[pd.DataFrame, list[dict]]:
    keys = {c: study.key(c) for c in cells}
    for c in cells:
        assert [outcome.cause for outcome in fit_cells(study, [c])] == [None]
    store = CellStore(study.folder)
    return chosen_table(cells, keys, study), [store.info(keys[c]) for c in cells]


def test_chosen_table__says_in_what_candidates_differ(tmp_path: Path) -> None:
    study = example(tmp_path, conditions=["none"], seeds=[0, 3], heads=HEADS, reductions=REDUCTIONS)
    cells = [
        cell("probe"),
        cell("one"),
        cell("forest", seed=3),
        cell("probe", reduction="pca", features=("one.a", "two.pooled")),
    ]
    found, kept = table(study, cells)
    assert list(found) == [
        *("grid", "features", "reduction", "head", "train_set", "train_condition", "seed"),
        *("chosen", "seconds"),
    ]
    assert found["features"].tolist() == ["one.a", "one.a", "one.a", "one.a+two.pooled"]
    assert found["seed"].tolist() == [0, 0, 3, 0]
    assert found["seconds"].tolist() == [info["seconds"] for info in kept]
    assert (found["seconds"] > 0).all()
    params = [info["head"]["params"] for info in kept]
    whiten = kept[3]["reduction"][1]["params"]["whiten"]
    assert found["chosen"].tolist() == [
        f"C={params[0]['C']}",
        "",
        f"n_estimators={params[2]['n_estimators']}",  # not the seed, which all of them share
        f"C={params[3]['C']}, whiten={whiten}",
    ]


@pytest.mark.parametrize("chosen", range(3))
def test_chosen_table__candidates_of_several_classes(tmp_path: Path, chosen: int) -> None:
    whole = example(tmp_path, conditions=["none"], heads=HEADS, reductions=REDUCTIONS)
    asked = cell("any", reduction="some")
    # validation may choose any: fit the one alone, and keep it as what the cell chose
    alone = example(
        tmp_path,
        conditions=["none"],
        heads={"any": [HEADS["any"][chosen]]},
        reductions={"some": [REDUCTIONS["some"][chosen]]},
    )
    single, [info] = table(alone, [asked])
    assert single["chosen"].tolist() == [""]
    CellStore(whole.folder).keep("0" * 32, asked, {}, info)
    (text,) = chosen_table([asked], {asked: "0" * 32}, whole)["chosen"]
    assert (
        text
        == (
            "GaussianNB, PCA",
            "SVC, C=0.5, Autoencoder, code_dim=1, tied=False",
            "SVC, C=2.0, Autoencoder, code_dim=2, tied=True",
        )[chosen]
    )


def test_chosen_table__a_network_has_its_time_alone(tmp_path: Path) -> None:
    study = example(tmp_path, conditions=["none"])
    network = cell("end to end", features=("net",), grid="fine-tuned")
    CellStore(study.folder).keep("0" * 32, network, {}, {"seconds": 12.5})
    (row,) = chosen_table([network], {network: "0" * 32}, study).to_dict("records")
    assert (row["chosen"], row["seconds"], row["head"]) == ("", 12.5, "end to end")
