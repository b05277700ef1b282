from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from dfl.errors import HeadError
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.heads.storage.skops_file import dump_pipeline, load_pipeline
from dfl.heads.storage.tree_check import check_trees
from tests.heads.sklearn_examples import ESTIMATORS, SPEC, images
from tests.heads.storage.test_sklearn_head import fitted

FILE = Path("head.skops")


@pytest.mark.parametrize("name", ["decision_tree", "random_forest", "gradient_boosting"])
def test_check__passes_what_sklearn_grows(name: str) -> None:
    for seed in range(3):
        check_trees(SklearnHead(ESTIMATORS[name](), SPEC).fit(*images(300, seed)).pipeline, FILE)


@pytest.mark.parametrize(
    ("field", "value"),
    [("left_child", 10**6), ("right_child", -7), ("left_child", 0), ("feature", 12)],
)
@pytest.mark.parametrize("name", ["decision_tree", "random_forest"])
def test_load__refuses_a_forged_tree(tmp_path: Path, name: str, field: str, value: int) -> None:
    pipeline = fitted(name).pipeline
    grown = pipeline[-1] if name == "decision_tree" else pipeline[-1].estimators_[1]
    state = grown.tree_.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    grown.tree_.__setstate__(state)
    dump_pipeline(pipeline, tmp_path / "head.skops")

    with pytest.raises(HeadError, match=r"head\.skops: the trees of .+ are malformed or unknown"):
        load_pipeline(tmp_path / "head.skops")


@pytest.mark.parametrize(
    ("field", "value"), [("left", 10**6), ("right", 0), ("feature_idx", -1), ("is_categorical", 1)]
)
def test_load__refuses_a_forged_boosted_tree(tmp_path: Path, field: str, value: int) -> None:
    pipeline = fitted("gradient_boosting").pipeline
    nodes = pipeline[-1]._predictors[3][0].nodes
    assert not nodes["is_leaf"][0]
    nodes[field][0] = value
    dump_pipeline(pipeline, tmp_path / "head.skops")

    with pytest.raises(HeadError, match="trees of HistGradientBoostingClassifier are malformed"):
        load_pipeline(tmp_path / "head.skops")


def test_check__tree_that_claims_more_nodes_than_it_has() -> None:
    pipeline = fitted("decision_tree").pipeline
    state = pipeline[-1].tree_.__getstate__()
    state["node_count"] += 1
    pipeline[-1].tree_.__setstate__(state)

    with pytest.raises(HeadError, match="trees of DecisionTreeClassifier are malformed"):
        check_trees(pipeline, FILE)


def test_check__trees_without_their_arrays() -> None:
    pipeline = fitted("gradient_boosting").pipeline
    pipeline[-1]._predictors[0][0].nodes = np.zeros(3)

    with pytest.raises(HeadError, match="its trees cannot be read"):
        check_trees(pipeline, FILE)


def test_check__trees_where_they_are_not_known() -> None:
    features, label = images()
    extra = Pipeline([("estimator", ExtraTreesClassifier(3).fit(features, label))])
    behind = Pipeline([("step", FunctionTransformer()), *fitted("decision_tree").pipeline.steps])

    with pytest.raises(HeadError, match="trees of ExtraTreesClassifier are malformed or unknown"):
        check_trees(extra, FILE)
    with pytest.raises(HeadError, match="trees of FunctionTransformer are malformed or unknown"):
        check_trees(behind, FILE)
