"""The life of a task in a Trainer; the heads' own arithmetic is tested beside each."""

import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from torch.utils._python_dispatch import TorchDispatchMode

from dfl.errors import CheckpointError, ConfigError
from dfl.features import FeatureDataModule, FeatureStore
from dfl.heads.tasks.bottleneck import BottleneckTask
from dfl.heads.tasks.linear_probe import LinearProbeTask
from dfl.types import FeatureLayer
from tests.heads.small_tasks import ADAM, SPEC, batch, feature_folder, run, trainer


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    return feature_folder(tmp_path_factory.mktemp("task") / "features")


@pytest.fixture(scope="module")
def fitted(features: Path) -> LinearProbeTask:
    task = LinearProbeTask(optimizer=ADAM)
    run("fit", task, features, max_epochs=3)
    return task


def test_fit__standardises_by_the_training_images_each_once(features: Path, fitted) -> None:
    store = FeatureStore.open(features)
    frame = store.manifest.frame
    train = (frame["split"] == "train") & ~frame["path"].duplicated()
    scaler = StandardScaler().fit(store.matrix()[train])
    normalise = fitted.model.normalise
    assert normalise.count == train.sum() == 24
    assert normalise.frozen
    np.testing.assert_allclose(normalise.running_mean, scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(normalise.running_var, scaler.var_, rtol=1e-5)


def test_validate__scores_and_loss_are_those_of_the_rows(features: Path, fitted) -> None:
    metrics = run("validate", fitted, features).callback_metrics
    store = FeatureStore.open(features)
    rows = store.manifest.frame["split"] == "val"
    scores = fitted.scores
    assert scores["path"].tolist() == store.manifest.frame["path"][rows].tolist()
    with torch.no_grad():
        expected = fitted.eval().model(torch.from_numpy(store.matrix()[rows]))
    np.testing.assert_allclose(scores["score"], expected, rtol=1e-6)
    once = scores.drop_duplicates("path")
    loss = log_loss(once["label"], 1 / (1 + np.exp(-once["score"])))
    assert metrics["val/loss"] == pytest.approx(loss, rel=1e-5)


def test_fit__scores_of_the_sanity_check_are_not_logged(features: Path) -> None:
    task = LinearProbeTask(optimizer=ADAM)
    made = run("fit", task, features, num_sanity_val_steps=1, limit_train_batches=1)
    assert len(task.scores) == 12  # all of the epoch, none of the check
    assert {"val/loss", "val/p/auroc", "train/accuracy"} <= made.callback_metrics.keys()


def test_scores__an_interrupted_epoch_leaves_none_behind(features: Path, fitted) -> None:
    fitted._collector.add(batch(torch.zeros(3, 6), [0, 1, 1]), "val", {"score": torch.zeros(3)})
    run("validate", fitted, features)
    assert len(fitted.scores) == 12


def test_predict__all_rows_without_a_look_at_labels(features: Path, tmp_path: Path, fitted) -> None:
    def hide(frame: pd.DataFrame) -> None:
        frame[["label", "split"]] = [-1, ""]

    hidden = feature_folder(tmp_path / "hidden", change=hide)
    run("predict", fitted, hidden)
    assert len(fitted.scores) == 60
    assert set(fitted.scores["label"]) == {-1}
    assert not [name for name in fitted.trainer.callback_metrics if "predict" in name]


def test_fit__unknown_label_in_the_train_split(tmp_path: Path) -> None:
    def hide(frame: pd.DataFrame) -> None:
        frame.loc[2, "label"] = -1

    features = feature_folder(tmp_path / "features", change=hide)
    with pytest.raises(ConfigError, match=r"f00.png: its label is unknown \(-1\), but it is in"):
        run("fit", LinearProbeTask(optimizer=ADAM), features)
    # without labels in its loss, an autoencoder takes it
    run("fit", BottleneckTask(2, [4], optimizer=ADAM), features)


def test_validate__unknown_label_is_left_out_of_the_loss(tmp_path: Path, fitted) -> None:
    def hide(frame: pd.DataFrame) -> None:
        frame.loc[frame["path"] == "f03.png", "label"] = -1

    known = run("validate", fitted, feature_folder(tmp_path / "a")).callback_metrics
    hidden = run("validate", fitted, feature_folder(tmp_path / "b", change=hide)).callback_metrics
    assert hidden["val/loss"].isfinite()
    assert hidden["val/loss"] != known["val/loss"]


def test_fit__learning_rate_follows_the_scheduler_by_epoch(features: Path) -> None:
    task = LinearProbeTask(
        optimizer=ADAM, lr_scheduler=lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.1)
    )
    made = run("fit", task, features, max_epochs=2)
    assert made.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * 0.01)


class _Waits(TorchDispatchMode):
    """Counts where the host reads a value that would be on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            names = [f"{Path(f.filename).name}:{f.name}" for f in traceback.extract_stack()]
            own = [n for n in names if n.startswith(("standardise", "scoring", "head", "logger_"))]
            # before it is moved; and torchmetrics looks on a CPU alone
            on_host = (
                "scoring.py:on_before_batch_transfer",
                "compute.py:normalize_logits_if_needed",
            )
            if own and not set(on_host) & set(names):
                self.lines.append(own[-1])
        return func(*args, **(kwargs or {}))


def test_fit__no_step_waits_for_the_device(features: Path) -> None:
    """What an epoch waits for is the same, however many batches it has."""
    counts = []
    for batches in (1, 2):
        task = LinearProbeTask(optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        with _Waits() as waits:
            made = run("fit", task, features, max_epochs=2, limit_train_batches=batches)
        assert made.num_training_batches == batches
        counts.append(waits.lines)
    assert counts[0] == counts[1]


def test_fit__needs_an_optimizer(features: Path) -> None:
    with pytest.raises(ConfigError, match=r"fit needs model.optimizer, for example"):
        run("fit", LinearProbeTask(), features)


def test_model__other_features_than_it_was_made_for(tmp_path: Path, fitted) -> None:
    other = (FeatureLayer("clip.pooled", 4, "ee" * 32), SPEC[1])
    with pytest.raises(CheckpointError, match=r"this model does not fit the feature .*eeeee"):
        run("validate", fitted, feature_folder(tmp_path / "other", spec=other))
    with pytest.raises(CheckpointError, match=r"layer 'dino.pooled' is missing"):
        run("validate", fitted, feature_folder(tmp_path / "same"), layers=["clip"])


def test_model__images_without_a_backbone(features: Path, tmp_path: Path) -> None:
    data = FeatureDataModule(features)
    loader = data.predict_dataloader()  # a loader alone says nothing of its features
    with pytest.raises(ConfigError, match="the model has no backbones and the data module yields"):
        trainer(tmp_path).predict(LinearProbeTask(), loader)
    task = LinearProbeTask()
    with pytest.raises(ConfigError, match="the batch holds images but the model has no backbones"):
        task.features({"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)})
