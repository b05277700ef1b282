from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from dfl.errors import HeadError
from dfl.features import FeatureStore
from dfl.heads.estimators import linear_probe
from dfl.heads.estimators.linear_probe import LinearProbe
from dfl.heads.storage.head_folder import load_head, save_head
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.heads.tasks.linear_probe import LinearProbeTask
from tests.heads.sklearn_examples import SPEC, images
from tests.heads.small_tasks import feature_folder, run


def test_fit__gives_the_scores_of_the_task(tmp_path: Path) -> None:
    """All rows in one batch: then both see the same ones in each step."""
    features = feature_folder(tmp_path / "features")
    task = LinearProbeTask(
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    )
    settings = {"max_epochs": 30, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    run("fit", task, features, batch_size=60, **settings)
    run("test", task, features)
    store = FeatureStore.open(features)
    frame, matrix = store.manifest.frame, store.matrix()
    train = ((frame["split"] == "train") & ~frame["path"].duplicated()).to_numpy()
    test = (frame["split"] == "test").to_numpy()

    probe = LinearProbe(learning_rate=0.01, weight_decay=0.1, epochs=30, batch_size=60)
    probe.fit(matrix[train], frame["label"][train])

    score = probe.decision_function(matrix[test])
    # Adam makes steps of rounding errors where a gradient begins at zero, as that of the bias
    np.testing.assert_allclose(task.scores["score"], score, atol=2e-3)
    assert np.ptp(score) > 1


def test_fit__is_decided_by_the_seed_and_leaves_random_numbers_alone() -> None:
    features, label = images()
    settings = {"epochs": 5, "batch_size": 16}
    torch.manual_seed(1)
    untouched = torch.rand(1)
    torch.manual_seed(1)

    first, second, other = (
        LinearProbe(**settings, seed=seed).fit(features, label) for seed in (3, 3, 4)
    )

    assert torch.rand(1) == untouched
    assert first.coef_.tolist() == second.coef_.tolist()
    assert first.coef_.tolist() != other.coef_.tolist()


def test_fit__does_not_depend_on_the_scale_of_a_column() -> None:
    features, label = images()
    scale = np.logspace(3, 0, features.shape[1]).astype(np.float32)

    plain = LinearProbe().fit(features, label).decision_function(features)
    scaled = LinearProbe().fit(features * scale, label).decision_function(features * scale)

    np.testing.assert_allclose(plain, scaled, atol=0.05)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"epochs": 0}, "epochs is 0, must be a whole number of at least 1"),
        ({"learning_rate": 0}, "learning_rate is 0, must be above 0"),
        ({"seed": -1}, "seed is -1, must be a whole number up to 4294967295"),
    ],
)
def test_fit__unusable_setting(setting: dict, problem: str) -> None:
    with pytest.raises(HeadError, match=f"the linear probe's {problem}"):
        LinearProbe(**setting).fit(*images())


def test_fit__diverged() -> None:
    features, label = images()
    with pytest.raises(HeadError, match="diverged with learning_rate 1e\\+38; lower it"):
        LinearProbe(learning_rate=1e38, epochs=3).fit(features, label)


def test_predict__before_fit() -> None:
    with pytest.raises(NotFittedError):
        LinearProbe().predict(images()[0])


def test_linear_probe__is_kept_without_its_training(tmp_path: Path) -> None:
    features, label = images()
    head = SklearnHead(linear_probe(epochs=7), SPEC).fit(features, label)

    save_head(head, tmp_path / "head")
    loaded = load_head(tmp_path / "head")

    assert loaded.score(features).tolist() == head.score(features).tolist()
    assert clone(loaded.pipeline)[-1].get_params() == head.pipeline[-1].get_params()
