"""Check the trees of a loaded head before they are walked.

skops trusts no trees by itself, and rightly so: sklearn follows their node and column numbers
without looking whether they exist, so a forged file could read foreign memory, crash the process or
go in circles. Here every number is checked once, on loading; a head that passes can be scored
safely.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from dfl.errors import HeadError
from dfl.heads.estimators.autoencoder_step import Autoencoder
from dfl.heads.estimators.block_scaler import BlockScaler
from dfl.heads.estimators.controls import Shuffled, Without
from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.heads.estimators.meta_estimators import Balanced, OnePerFamily

TREE_TYPES: Final = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""The types that hold trees; they are trusted only together with `check_trees`."""

_BEFORE: Final = (StandardScaler, PCA, Autoencoder, BlockScaler, BottleneckEncoder)
_LEAF: Final = -1  # sklearn's mark for "no child"


def check_trees(pipeline: Pipeline, file: Path) -> None:
    """Refuse trees that point outside of themselves, or sit where they cannot be checked.

    Args:
        pipeline: A loaded pipeline whose file names one of `TREE_TYPES`.
        file: That file, for the error.

    Raises:
        HeadError: If a tree is malformed, or an estimator is none whose trees are known.
    """
    estimator = pipeline[-1]
    others = [type(step).__name__ for _, step in pipeline.steps[:-1] if type(step) not in _BEFORE]
    try:
        sound = not others and _is_sound(estimator)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as err:
        raise HeadError(f"{file}: its trees cannot be read ({err!r}); fit the head again") from err
    if not sound:
        name = others[0] if others else type(estimator).__name__
        raise HeadError(f"{file}: the trees of {name} are malformed or unknown; fit the head again")


def _is_sound(estimator: ClassifierMixin) -> bool:
    if type(estimator) in (Balanced, Shuffled, Without):
        return _is_sound(estimator.estimator_)
    if type(estimator) is OnePerFamily:
        return all(_is_sound(member) for member in estimator.members_)
    if type(estimator) is DecisionTreeClassifier:
        return _tree_is_sound(estimator)
    if type(estimator) is RandomForestClassifier:
        return all(
            type(tree) is DecisionTreeClassifier
            and tree.n_features_in_ == estimator.n_features_in_
            and _tree_is_sound(tree)
            for tree in estimator.estimators_
        )
    if type(estimator) is HistGradientBoostingClassifier:
        return all(
            _nodes_are_sound(nodes, estimator.n_features_in_) for nodes in _boosted(estimator)
        )
    return False


def _tree_is_sound(estimator: DecisionTreeClassifier) -> bool:
    tree = estimator.tree_
    # first the sizes: the arrays below are views of as much memory as these say
    if tree.node_count != tree.capacity or tree.node_count < 1:
        return False
    if (tree.n_outputs, tree.max_n_classes) != (1, 2):
        return False
    inner = np.flatnonzero(tree.children_left != _LEAF)
    children = np.stack([tree.children_left[inner], tree.children_right[inner]])
    return _links_are_sound(
        inner, children, tree.feature[inner], tree.node_count, estimator.n_features_in_
    )


def _boosted(estimator: HistGradientBoostingClassifier) -> Iterator[npt.NDArray[np.void]]:
    return (tree.nodes for iteration in estimator._predictors for tree in iteration)


def _nodes_are_sound(nodes: npt.NDArray[np.void], width: int) -> bool:
    if nodes.ndim != 1 or not len(nodes) or nodes["is_categorical"].any():
        return False
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    children = np.stack([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
    return _links_are_sound(inner, children, nodes["feature_idx"][inner], len(nodes), width)


def _links_are_sound(
    inner: npt.NDArray[np.int64],
    children: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    count: int,
    width: int,
) -> bool:
    """Whether children come after their parent, so that every walk ends, and columns exist."""
    return bool(
        (children > inner).all()
        and (children < count).all()
        and (column >= 0).all()
        and (column < width).all()
    )
