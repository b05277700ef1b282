from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.errors import ConfigError, HeadError
from dfl.features import FeatureStore
from dfl.heads.tasks.rine import RINETask
from dfl.types import UNKNOWN, FeatureLayer
from tests.heads.small_tasks import ADAM, SPEC, feature_folder, run

BLOCKS = tuple(FeatureLayer(f"clip.block{i}.cls", 4, "ab" * 32) for i in (3, 5, 7))
SMALL = {"projection_dim": 8, "projection_layers": 1, "dropout": 0.0}


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    return feature_folder(tmp_path_factory.mktemp("rine") / "features", spec=BLOCKS)


def test_fit__learns_and_its_checkpoint_scores_the_same(features: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)  # of few rectified units all may be dead from the start
    task = RINETask(**SMALL, optimizer=ADAM)
    made = run("fit", task, features, max_epochs=8, limit_val_batches=0)
    made.save_checkpoint(tmp_path / "rine.ckpt")
    run("test", task, features)

    again = RINETask(**SMALL)
    run("test", again, features, ckpt_path=tmp_path / "rine.ckpt")

    assert again.scores.equals(task.scores)
    truth = task.scores["label"] == 1
    assert task.scores["score"][truth].mean() > task.scores["score"][~truth].mean() + 1
    assert task.model.importance.shape == (3, 8)
    assert (task.model.importance != 0).any()


def test_head_step__the_contrast_is_of_training_batches() -> None:
    task = RINETask(**SMALL, contrast_weight=0.3)
    task.spec = BLOCKS
    task.configure_model()
    batch, label = torch.randn(6, 12), torch.tensor([0, 1, 1, 0, 1, 0])

    trained = task.train().head_step(batch, label)
    tested = task.eval().head_step(batch, torch.tensor([0, 1, 1, 0, 1, UNKNOWN]))

    assert set(trained["logs"]) == {"classification", "contrast"}
    assert tested["logs"] == {}
    assert tested["loss"].isnan().tolist() == [False] * 5 + [True]
    assert task.head_step(batch, None)["loss"] is None


def test_head_step__of_a_store_is_finite_in_every_row(features: Path) -> None:
    matrix = FeatureStore.open(features).matrix()
    task = RINETask(**SMALL)
    task.spec = BLOCKS
    task.configure_model()

    logit = task.eval().head_step(torch.from_numpy(np.array(matrix)), None)["logit"]

    assert logit.isfinite().all()


def test_fit__layers_that_cannot_be_weighed(tmp_path: Path) -> None:
    folder = feature_folder(tmp_path / "features", spec=SPEC)

    with pytest.raises(HeadError, match=r"clip.pooled \(4\), dino.pooled \(2\); choose two layers"):
        run("fit", RINETask(**SMALL, optimizer=ADAM), folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.0}, "dropout is 1.0, must be a number of at least 0 and below 1"),
        ({"projection_dim": 0}, "projection_dim is 0, must be a whole number"),
        ({"contrast_weight": -1.0}, "contrast_weight is -1.0, must be a number of at least 0"),
    ],
)
def test_init__settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RINETask(**settings)
