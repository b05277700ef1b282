from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.errors import HeadError
from dfl.heads import RINE
from dfl.heads.estimators import balanced, rine
from dfl.heads.modules.rine_training import train_rine
from dfl.heads.storage.head_folder import load_head, save_head
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.types import FeatureLayer
from tests.heads.sklearn_examples import images, provenance

SPEC = tuple(FeatureLayer(f"clip.block{i}.cls", 4, "ab" * 32) for i in (3, 5, 7))
SMALL = {"projection_dim": 6, "epochs": 2, "batch_size": 32}


@pytest.mark.parametrize("depth", [1, 2])
def test_decision_function__is_that_of_the_module(depth: int) -> None:
    features, label = images()
    estimator = RINE(**SMALL, projection_layers=depth).fit(features, label, spec=SPEC)

    head = train_rine(features, label, estimator, blocks=3)

    with torch.no_grad():
        expected = head(torch.from_numpy(features)).logit.numpy()
    np.testing.assert_allclose(estimator.decision_function(features), expected, atol=1e-4)
    np.testing.assert_allclose(estimator.importance_.sum(axis=0), 1, rtol=1e-5)
    assert estimator.importance_.shape == (3, 6)


def test_fit__is_decided_by_the_seed() -> None:
    features, label = images()

    first, second, other = (
        RINE(**SMALL, seed=seed).fit(features, label, spec=SPEC).decision_function(features)
        for seed in (3, 3, 4)
    )

    assert (first == second).all()
    assert (first != other).any()


def test_fit__rows_of_weight_0_are_not_learnt_from() -> None:
    """Without the contrast and in one batch, they leave the loss but for its scale."""
    features, label = images(40)
    settings = SMALL | {"contrast_weight": 0.0, "dropout": 0.0, "batch_size": 40}
    wrong = label.copy()
    wrong[:10] = 1 - wrong[:10]
    weight = np.where(np.arange(40) < 10, 0.0, 1.0)

    scores = [
        RINE(**settings).fit(features, each, sample_weight=weight, spec=SPEC)
        for each in (label, wrong)
    ]

    assert (scores[0].decision_function(features) == scores[1].decision_function(features)).all()


def test_head__balanced_and_stored(tmp_path: Path) -> None:
    features, label = images()
    head = SklearnHead(balanced(rine(**SMALL)), SPEC).fit(features, label, provenance(label))

    save_head(head, tmp_path / "head")

    score = load_head(tmp_path / "head").score(features)
    assert score.tobytes() == head.score(features).tobytes()


def test_fit__layers_that_are_not_those_of_the_columns() -> None:
    features, label = images()

    with pytest.raises(HeadError, match="features of 11 columns, and layers of 12: RINE takes"):
        RINE(**SMALL).fit(features[:, :11], label, spec=SPEC)
    with pytest.raises(HeadError, match="RINE weighs layers of one width, and the features are no"):
        RINE(**SMALL).fit(features, label)
