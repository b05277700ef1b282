"""The baseline that is trained end to end, in a Trainer, on small images."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from dfl.data import ImageDataModule, Pair, Pairs, Resize, Splits
from dfl.errors import CheckpointError, ConfigError
from dfl.heads.modules.image_classifier import ImageClassifier
from dfl.heads.storage.checkpoint import HeadDescription, read_checkpoint
from dfl.heads.tasks.finetune import FineTuneTask
from tests.heads.small_tasks import ADAM, feature_folder
from tests.heads.small_tasks import run as run_on_features
from tests.heads.small_tasks import run_on as run


def tiny(**arguments: Any) -> FineTuneTask:
    settings = {"model": "test_resnet", "pretrained": False, "input_size": 32}
    adam = lambda parameters: torch.optim.Adam(parameters, lr=3e-3)  # noqa: E731
    return FineTuneTask(**settings | {"optimizer": adam} | arguments)


@pytest.fixture(scope="module")
def data(image_root: Path, tmp_path_factory) -> ImageDataModule:
    return ImageDataModule(
        Pairs(image_root, {name: Pair(real=name, fake=name) for name in ("alpha", "beta")}),
        crop=Resize(32),
        batch_size=8,
        splits=Splits(val_fraction=0.25, folder=tmp_path_factory.mktemp("splits")),
    )


class _Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.values.append(float(outputs["loss"]))


@pytest.fixture(scope="module")
def fitted(data: ImageDataModule, tmp_path_factory) -> tuple[FineTuneTask, Path, _Losses]:
    torch.manual_seed(0)
    task, losses = tiny(), _Losses()
    made = run("fit", task, data, max_epochs=6, callbacks=[losses])
    path = tmp_path_factory.mktemp("fitted") / "six.ckpt"
    made.save_checkpoint(path)
    return task, path, losses


def test_fit__learns_what_is_separable(data: ImageDataModule, fitted) -> None:
    task, _, losses = fitted
    assert np.mean(losses.values[-5:]) < 0.5 * np.mean(losses.values[:5])
    metrics = run("test", task, data).callback_metrics
    assert metrics["test/auroc"] == 1
    assert "test/alpha/ap" in metrics


def test_fit__moves_every_weight_and_the_batchnorm_statistics(data: ImageDataModule) -> None:
    torch.manual_seed(0)
    task = tiny()
    task.model = ImageClassifier("test_resnet", pretrained=False, input_size=32)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    run("fit", task, data)
    after = task.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {"model.mean", "model.std"}
    assert any("running_var" in name for name in before)


def test_checkpoint__holds_the_network_and_gives_the_same_scores(
    data: ImageDataModule, fitted
) -> None:
    task, path, _ = fitted
    run("test", task, data)
    content = read_checkpoint(path)
    about = HeadDescription.load(content)
    assert about.task == "dfl.heads.FineTuneTask"
    assert about.architecture == {"model": "test_resnet", "input_size": 32}
    assert (about.features, about.origin.backbones) == ((), {})
    assert about.origin.preprocess["crop"]["class_path"] == "dfl.data.Resize"
    assert about.origin.execution == {"precision": "32-true", "engine": "eager"}
    # without random weights being asked for: a checkpoint brings its own, the hub is not needed
    for loaded in (tiny(pretrained=True), tiny()):
        run("test", loaded, data, ckpt_path=path)
        np.testing.assert_array_equal(loaded.scores["score"], task.scores["score"])
    state = FineTuneTask.load_from_checkpoint(path, model="test_resnet", input_size=32).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in task.state_dict().items())


def test_checkpoint__of_another_model_or_size(data: ImageDataModule, fitted) -> None:
    _, path, _ = fitted
    with pytest.raises(
        CheckpointError, match=r"'input_size': 32}, this model is .* 'input_size': 4"
    ):
        run("test", tiny(input_size=48), data, ckpt_path=path)
    with pytest.raises(CheckpointError, match=r"'test_resnet', .* 'test_efficientnet'"):
        run("test", tiny(model="test_efficientnet"), data, ckpt_path=path)


def test_fit__resumes(data: ImageDataModule, fitted) -> None:
    _, path, _ = fitted
    task = tiny()
    assert run("fit", task, data, max_epochs=7, ckpt_path=path).current_epoch == 7
    assert int(task.model.network.bn1.num_batches_tracked) == 7 * len(data.train_dataloader())


def test_fit__bfloat16_mixed(data: ImageDataModule, monkeypatch, caplog) -> None:
    monkeypatch.setattr("dfl.backbones.precision._bf16_of_cpu", lambda: None)
    task = tiny()
    run("fit", task, data, precision="bf16-mixed", max_epochs=1)
    said = "this cpu only imitates bf16-mixed, which is slow; --trainer.precision 32-true is not"
    assert caplog.text.count(said) == 1
    assert {p.dtype for p in task.parameters()} == {torch.float32}
    assert task.scores["score"].is_unique
    assert task.description().origin.precision == "bf16-mixed"
    run("predict", task, data, precision="bf16-mixed")
    expected, exact = task.scores["score"], score_in("32-true", task, data)
    np.testing.assert_array_equal(score_in("bf16-mixed", task, data), expected)
    assert not np.array_equal(exact, expected)
    with pytest.raises(ConfigError, match="precision: bf16-true would round the trained weights"):
        task.run_in("bf16-true")


def score_in(precision: str, task: FineTuneTask, data: ImageDataModule) -> pd.Series:
    """In a trainer of float32, as `dfl detect` does."""
    task.run_in(precision)
    run("predict", task, data)
    return task.scores["score"]


def test_predict__without_labels(data: ImageDataModule, fitted) -> None:
    task, _, _ = fitted
    run("predict", task, data)
    assert len(task.scores) == len(data.manifest)


def test_untrained__takes_the_arguments_and_not_the_weights(fitted) -> None:
    task, _, _ = fitted
    other = task.untrained()
    assert other.architecture() == task.architecture()
    assert (other.model, other.optimizer) == (None, task.optimizer)
    from_file = FineTuneTask("test_resnet", weights=Path("w.safetensors"))
    assert from_file.untrained().weights == Path("w.safetensors")
    bare = from_file.untrained(pretrained=False)
    assert (bare.weights, bare.pretrained) == (None, False)


def test_mistake__features_in_place_of_images(tmp_path: Path) -> None:
    features = feature_folder(tmp_path / "features")
    message = "trains on images and the data module yields features; use a data module of images"
    with pytest.raises(ConfigError, match=message):
        run_on_features("fit", tiny(), features)
    with pytest.raises(ConfigError, match=message):
        tiny().step({"features": torch.zeros(2, 6)}, None)


def test_mistake__nothing_was_trained(data: ImageDataModule) -> None:
    with pytest.raises(ConfigError, match="test_resnet has not been fine-tuned yet; fit it, or"):
        run("test", tiny(), data)


def test_mistake__one_image_left_over(data: ImageDataModule) -> None:
    task = FineTuneTask("resnet18", pretrained=False, input_size=32, optimizer=ADAM)
    task.model = ImageClassifier("resnet18", pretrained=False, input_size=32)
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="a batch of one image of this input size is too little"):
        task.train().step({"image": image}, torch.zeros(1))
