"""Backbones that are tuned a little, in a Trainer, on small images."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from dfl import Detector
from dfl.backbones import TimmBackbone
from dfl.cli import main
from dfl.data import ImageDataModule, Pair, Pairs, Resize, Splits
from dfl.errors import CheckpointError, ConfigError
from dfl.features import FeatureStore
from dfl.heads import LinearProbeTask, TunedBackbone, TuneTask
from dfl.heads.storage.checkpoint import HeadDescription, read_checkpoint
from dfl.recipe import build, describe
from tests.backbones import tiny_timm  # registers its models
from tests.heads.small_tasks import feature_folder
from tests.heads.small_tasks import run as run_on_features
from tests.heads.small_tasks import run_on as run
from tests.runs import image_data

MODEL = tiny_timm.MODELS[3]
LORA = pytest.param("lora", marks=pytest.mark.slow)
NORMS = ("norm_pre", "blocks.0.norm1", "blocks.0.norm2")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", seed=0)


def random_weights(file: Path, *, seed: int) -> Path:
    torch.manual_seed(seed)
    save_file(timm.create_model(MODEL).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def data(image_root: Path, tmp_path_factory) -> ImageDataModule:
    return ImageDataModule(
        Pairs(image_root, {name: Pair(real=name, fake=name) for name in ("alpha", "beta")}),
        crop=Resize(32),
        batch_size=8,
        splits=Splits(val_fraction=0.25, folder=tmp_path_factory.mktemp("splits")),
    )


def tiny(weights: Path, layers: tuple[str, ...] = ("block0.mean",), **arguments: Any) -> TuneTask:
    backbone = TimmBackbone(MODEL, list(layers), weights=str(weights))
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)  # noqa: E731
    return TuneTask({"clip": backbone}, **{"optimizer": adam, "rank": 2} | arguments)


def network(task: TuneTask) -> torch.nn.Module:
    return task.backbone.backbones["clip"].network


@pytest.fixture(scope="module")
def fitted(data: ImageDataModule, weights: Path, tmp_path_factory) -> tuple[TuneTask, Path]:
    torch.manual_seed(0)
    task = tiny(weights)
    made = run("fit", task, data, max_epochs=4)
    path = tmp_path_factory.mktemp("fitted") / "tuned.ckpt"
    made.save_checkpoint(path)
    return task, path


def test_fit__changes_the_norms_and_the_linear_layer_alone(weights: Path, fitted) -> None:
    task, _ = fitted
    before, after = tiny(weights).backbone.state_dict(), task.backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    own = "backbones.clip.network."
    assert changed == {f"{own}{norm}.{kind}" for norm in NORMS for kind in ("weight", "bias")}
    assert all(bool(parameter.any()) for parameter in task.model.parameters())
    assert not any(module.training for module in task.backbone.modules())


def test_fit__makes_the_loss_small(data: ImageDataModule, fitted) -> None:
    task, _ = fitted
    run("predict", task, data)
    with torch.no_grad():
        losses = [task.step(batch, batch["label"])["loss"] for batch in data.train_dataloader()]
    assert float(torch.cat(losses).mean()) < math.log(2)  # where it begins


def test_checkpoint__holds_what_was_trained_and_what_it_belongs_to(weights: Path, fitted) -> None:
    _, path = fitted
    content = read_checkpoint(path)
    state = content["state_dict"]
    assert sum(value.numel() for value in state.values()) == len(NORMS) * 2 * 32 + 32 + 1
    about = HeadDescription.load(content)
    frozen = TimmBackbone(MODEL, ["block0.mean"], weights=str(weights))
    assert about.features == frozen.spec("clip")
    assert about.task == "dfl.heads.TuneTask"
    assert about.origin.backbones["clip"]["init_args"]["weights"] == str(weights)
    assert about.architecture == {"trainable": "layernorm", "blocks": None, "normalise": True}
    assert path.stat().st_size < weights.stat().st_size / 3


@pytest.mark.parametrize("trainable", ["layernorm", LORA])
def test_checkpoint__gives_the_same_scores_and_is_a_detector(
    trainable: str, data: ImageDataModule, weights: Path, tmp_path: Path
) -> None:
    if trainable == "lora":
        pytest.importorskip("peft", reason="needs the extra [lora]")
    torch.manual_seed(0)
    task, path = tiny(weights, trainable=trainable), tmp_path / "tuned.ckpt"
    run("fit", task, data, max_epochs=2).save_checkpoint(path)
    run("predict", task, data)
    loaded = tiny(weights, trainable=trainable)
    run("predict", loaded, data, ckpt_path=path)
    np.testing.assert_array_equal(loaded.scores["score"], task.scores["score"])
    images = [data.manifest.resolve(each) for each in task.scores["path"][:6]]
    table = Detector.load(path)(images)
    np.testing.assert_allclose(table["score"], task.scores["score"][:6], atol=1e-5)


@pytest.mark.parametrize("trainable", ["layernorm", LORA])
def test_tuned_backbone__gives_the_features_of_the_task(
    trainable: str, data: ImageDataModule, weights: Path, tmp_path: Path
) -> None:
    if trainable == "lora":
        pytest.importorskip("peft", reason="needs the extra [lora]")
    torch.manual_seed(0)
    task, path = tiny(weights, trainable=trainable), tmp_path / "tuned.ckpt"
    run("fit", task, data, max_epochs=2).save_checkpoint(path)
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = task.backbone(image)["clip.block0.mean"]
    merged, frozen = TunedBackbone(str(path)), TimmBackbone(MODEL, weights=str(weights))
    torch.testing.assert_close(merged(image)["block0.mean"], expected, rtol=0, atol=1e-6)
    plain = frozen.network.state_dict()
    assert plain.keys() == merged.network.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    assert not torch.allclose(merged(image)["block0.mean"], first_block(frozen, image), atol=1e-3)

    # other layers of the same network, made again from their description
    other = build(describe(TunedBackbone(str(path), ["pooled", "block0.mean"])))
    assert other.fingerprint("block0.mean") == merged.fingerprint("block0.mean")
    assert other.fingerprint("pooled") != frozen.fingerprint("pooled")
    torch.testing.assert_close(other(image)["block0.mean"], merged(image)["block0.mean"])


def first_block(frozen: TimmBackbone, image: Tensor) -> Tensor:
    return TimmBackbone(MODEL, ["block0.mean"], weights=frozen.weights)(image)["block0.mean"]


def test_tuned_backbone__goes_into_extract(
    image_root: Path, tmp_path: Path, monkeypatch, fitted
) -> None:
    task, path = fitted
    monkeypatch.chdir(tmp_path)
    tuned = ["--backbones.tuned=dfl.heads.TunedBackbone", f"--backbones.tuned.checkpoint={path}"]
    main(["extract", *tuned, *image_data(image_root), "--out=features", "--accelerator=cpu"])
    store = FeatureStore.open(Path("features"))
    assert store.spec == TunedBackbone(str(path)).spec("tuned")
    assert store.spec[0].fingerprint != task.spec[0].fingerprint


def test_tuned_backbone__as_a_probe_stands_on_it(data: ImageDataModule, fitted) -> None:
    _, path = fitted
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)  # noqa: E731
    probe = LinearProbeTask({"tuned": TunedBackbone(str(path))}, optimizer=adam)
    run("fit", probe, data, max_epochs=2)
    assert probe.description().origin.backbones["tuned"] == {
        "class_path": "dfl.heads.TunedBackbone",
        "init_args": {"checkpoint": str(path), "layers": ["block0.mean"], "weights": None},
    }


def test_tuned_backbone__of_other_weights(
    data: ImageDataModule, weights: Path, tmp_path: Path, fitted
) -> None:
    _, path = fitted
    other = random_weights(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(CheckpointError, match="belongs to a clip of other weights or another inp"):
        TunedBackbone(str(path), weights=str(other))
    with pytest.raises(CheckpointError, match=r"does not fit this model: layer 'clip.block0.mean'"):
        run("predict", tiny(other), data, ckpt_path=path)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(weights.read_bytes())
    same = TunedBackbone(str(path), weights=str(moved))
    assert same.fingerprint("block0.mean") == TunedBackbone(str(path)).fingerprint("block0.mean")


def test_tuned_backbone__of_what_is_no_tuned_backbone(
    data: ImageDataModule, weights: Path, tmp_path: Path
) -> None:
    probe = LinearProbeTask(
        {"clip": TimmBackbone(MODEL, weights=str(weights))}, optimizer=torch.optim.Adam
    )
    run("fit", probe, data).save_checkpoint(tmp_path / "probe.ckpt")
    with pytest.raises(CheckpointError, match=r"holds a dfl.heads.LinearProbeTask, which has tun"):
        TunedBackbone(str(tmp_path / "probe.ckpt"))
    random = TuneTask({"clip": TimmBackbone(MODEL, pretrained=False)}, optimizer=torch.optim.Adam)
    run("fit", random, data).save_checkpoint(tmp_path / "random.ckpt")
    with pytest.raises(CheckpointError, match=r"random weights \(pretrained: false\)"):
        TunedBackbone(str(tmp_path / "random.ckpt"))


def test_fit__resumes(data: ImageDataModule, weights: Path, fitted) -> None:
    _, path = fitted
    assert run("fit", tiny(weights), data, max_epochs=5, ckpt_path=path).current_epoch == 5


def test_fit__bfloat16_mixed(data: ImageDataModule, weights: Path) -> None:
    task = tiny(weights)
    run("fit", task, data, precision="bf16-mixed")
    assert {p.dtype for p in task.parameters()} == {torch.float32}
    assert task.scores["score"].is_unique


def test_step__loss_is_the_weighted_sum_in_training_alone(weights: Path) -> None:
    given = {"alignment": 0.1, "uniformity": 0.5}
    task, plain = tiny(weights, **given), tiny(weights)
    batch = {"image": torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)}
    label = torch.tensor([0, 1, 0, 1, 1, 0])
    for each in (task, plain):
        each.configure_model()
        torch.nn.init.constant_(each.model.weight, 0.1)
    made, cross_entropy = task.train().step(batch, label), plain.train().step(batch, label)
    terms = sum(given[name] * term for name, term in made["logs"].items())
    assert made["logs"].keys() == given.keys()
    torch.testing.assert_close(made["loss"], cross_entropy["loss"] + terms)
    evaluated = task.eval().step(batch, label)
    torch.testing.assert_close(evaluated["loss"], cross_entropy["loss"])
    assert evaluated["logs"] == {}


def test_step__compares_clean_and_degraded_views(weights: Path) -> None:
    task = tiny(weights, consistency=0.5, feature_consistency=0.25)
    task.configure_model()
    torch.nn.init.constant_(task.model.weight, 0.3)
    clean = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    label = torch.tensor([0, 1, 1])
    same = task.train().step({"image": torch.stack([clean, clean], 1)}, label)
    assert {name: term.item() for name, term in same["logs"].items()} == {
        "consistency": 0.0,
        "feature_consistency": 0.0,
    }
    torch.testing.assert_close(same["loss"][::2], task.eval().step({"image": clean}, label)["loss"])
    other = task.train().step({"image": torch.stack([clean, clean // 2], 1)}, label)
    assert all(term.item() > 0 for term in other["logs"].values())
    assert other["logit"].shape == (3,)
    with pytest.raises(ConfigError, match=r"does not give two; put dfl.data.WithDegraded last in"):
        task.step({"image": clean}, label)


def test_untrained__has_the_arguments_and_learnt_nothing(weights: Path, fitted) -> None:
    task, _ = fitted
    other = task.untrained(pretrained=False)
    assert other.beginning() == task.beginning() == tiny(weights).beginning()
    assert other.beginning() != tiny(weights, uniformity=0.5).beginning()
    assert other.beginning() != tiny(weights, ("pooled",)).beginning()
    assert (other.model, other.optimizer) == (None, task.optimizer)
    assert torch.equal(network(other).norm_pre.weight, network(tiny(weights)).norm_pre.weight)


def test_mistakes(weights: Path, tmp_path: Path) -> None:
    backbone = TimmBackbone(MODEL, weights=str(weights))
    with pytest.raises(ConfigError, match=r"one is tuned at a time, got \['a', 'b'\]"):
        TuneTask({"a": backbone, "b": backbone})
    with pytest.raises(ConfigError, match="uniformity: a weight is a number of at least 0, got -1"):
        tiny(weights, uniformity=-1)
    with pytest.raises(ConfigError, match="alignment: is of points on a sphere, and normalise: fa"):
        tiny(weights, alignment=1, normalise=False)
    with pytest.raises(ConfigError, match="TuneTask trains a backbone, which takes images, and"):
        run_on_features("fit", tiny(weights), feature_folder(tmp_path / "features"))
