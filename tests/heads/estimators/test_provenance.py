import numpy as np
import pandas as pd
import pytest

from dfl.errors import HeadError
from dfl.heads.estimators import balanced, lda, logistic_regression, one_per_family, prototypes
from dfl.heads.estimators.provenance import (
    fit_parameters,
    kinds_of,
    provenance_of,
    takes_provenance,
    unsaid,
)
from dfl.heads.storage.sklearn_head import SklearnHead
from tests.heads.sklearn_examples import SPEC, images, provenance

FRAME = pd.DataFrame(
    {
        "path": ["0.png", "1.png", "2.png", "3.png"],
        "group": ["0", "1", "2", "3"],
        "label": [0, 0, 1, 1],
        "generator": ["real", "real", "sdxl", "flux"],
        "dataset": ["a", "b", "a", "b"],
        "family": ["", "", "diffusion", ""],
        "source": ["web", None, "", ""],
    }
)


def test_provenance_of__generator_and_dataset_stand_in() -> None:
    found = provenance_of(FRAME)

    assert found["family"].tolist()[2:] == ["diffusion", "flux"]
    assert found["source"].tolist()[:2] == ["web", "b"]
    bare = provenance_of(FRAME.drop(columns=["family", "source"]))
    assert bare["family"].tolist()[2:] == ["sdxl", "flux"]
    assert bare["source"].tolist()[:2] == ["a", "b"]


def test_unsaid__counts_what_stands_in() -> None:
    assert unsaid(FRAME) == (
        "1 of the fakes have no family: their generator stands for it; "
        "1 of the photographs have no source: their datasets stand for it"
    )
    assert unsaid(FRAME.iloc[[0, 2]]) is None


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("family", ["web", "b", "diffusion", "flux"]),
        ("generator", ["web", "b", "sdxl", "flux"]),
        ("dataset", ["a", "b", "a", "b"]),
    ],
)
def test_kinds_of__photographs_by_source_and_fakes_by_what_is_asked(
    by: str, expected: list[str]
) -> None:
    label = FRAME["label"].to_numpy()

    assert kinds_of(label, provenance_of(FRAME), by).tolist() == expected
    assert kinds_of(label, None, by).tolist() == [""] * 4


@pytest.mark.parametrize(
    ("by", "table", "message"),
    [
        ("class", FRAME, "by is 'class': choose family, generator, dataset"),
        ("family", FRAME.drop(columns="family"), "no column 'family'; it needs generator"),
        ("family", FRAME.iloc[:3], "provenance of 3 images for 4"),
        ("family", FRAME.fillna(""), "2 of 4 images have no source or family"),
    ],
)
def test_kinds_of__what_cannot_be(by: str, table: pd.DataFrame, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        kinds_of(FRAME["label"].to_numpy(), table, by)


def test_fit_parameters__only_of_steps_that_ask() -> None:
    table = provenance(np.arange(4) % 2)

    assert fit_parameters(lda(), SPEC, table) == {}
    assert list(fit_parameters(balanced(lda()), SPEC, table)) == ["estimator__provenance"]
    assert takes_provenance([lda(), one_per_family(lda())])
    assert takes_provenance([prototypes()])
    assert not takes_provenance([lda()])


def test_head__asks_for_the_provenance() -> None:
    with pytest.raises(HeadError, match="Balanced learns of what kind each image is; give fit the"):
        SklearnHead(balanced(logistic_regression()), SPEC).fit(*images())
