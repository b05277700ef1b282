from typing import get_type_hints

import pytest
from jsonargparse import ArgumentParser
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from dfl.heads import estimators
from tests.heads.sklearn_examples import ESTIMATORS, images

OTHERS = {
    *("autoencoder", "bottleneck", "pca", "learned_text", "zero_shot", "scaled_blocks"),
    *("balanced", "one_per_family", "shuffled", "without"),  # they take another head
}
FACTORIES = sorted(set(estimators.__all__) - OTHERS)


@pytest.mark.parametrize("name", FACTORIES)
def test_factory__is_typed_and_ends_in_an_estimator(name: str) -> None:
    factory = getattr(estimators, name)
    hints = get_type_hints(factory)

    pipeline = factory()

    assert hints.pop("return") is Pipeline
    assert len(hints) == factory.__code__.co_argcount
    assert pipeline.steps[-1][0] == "estimator"


@pytest.mark.parametrize("name", FACTORIES)
def test_factory__scales_where_it_matters_only(name: str) -> None:
    scale_free = {
        *("decision_tree", "random_forest", "gradient_boosting", "linear_probe", "rine"),
        "photograph_distance",
    }

    steps = getattr(estimators, name)().named_steps

    assert ("scale" in steps) == (name not in scale_free)
    assert isinstance(steps.get("scale", StandardScaler()), StandardScaler)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_factory__fits_twice_to_the_same(name: str) -> None:
    features, label = images()
    first, second = ESTIMATORS[name]().fit(features, label), ESTIMATORS[name]().fit(features, label)

    assert (first.predict(features) == second.predict(features)).all()
    assert (first.predict(features) == label).mean() > 0.6


def test_lda__without_shrinkage_takes_the_solver_for_singular_covariances() -> None:
    plain: LinearDiscriminantAnalysis = estimators.lda(shrinkage=None)[-1]
    shrunk: LinearDiscriminantAnalysis = estimators.lda(shrinkage=0.3)[-1]

    assert (plain.solver, plain.shrinkage) == ("svd", None)
    assert (shrunk.solver, shrunk.shrinkage) == ("lsqr", 0.3)


def test_balanced__takes_a_head_that_takes_a_head() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--head", type=Pipeline)
    probe = {
        "class_path": "dfl.heads.estimators.logistic_regression",
        "init_args": {"C": 0.02},
    }
    inner = {"class_path": "dfl.heads.estimators.balanced", "init_args": {"head": probe}}
    config = parser.parse_object(
        {
            "head": {
                "class_path": "dfl.heads.estimators.one_per_family",
                "init_args": {"head": inner, "by": "generator"},
            }
        }
    )

    head = parser.instantiate(config).head

    assert [name for name, _ in head.steps] == ["scale", "estimator"]
    assert head[-1].by == "generator"
    assert head[-1].estimator.by == "family"
    assert head[-1].estimator.estimator.C == 0.02


@pytest.mark.parametrize(("text", "value"), [("0.1", 0.1), ("auto", "auto")])
def test_rbf_svm__parses_gamma_by_its_type(text: str, value: float | str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--head", type=Pipeline)
    config = parser.parse_args(
        ["--head=dfl.heads.estimators.rbf_svm", f"--head.gamma={text}", "--head.C=3"]
    )

    svm = parser.instantiate(config).head[-1]

    assert svm.gamma == value
    assert svm.C == 3.0
