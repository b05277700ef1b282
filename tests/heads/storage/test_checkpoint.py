import pickle
from pathlib import Path

import pytest
import torch

from dfl.backbones import TimmBackbone
from dfl.errors import CheckpointError
from dfl.heads.storage.checkpoint import HeadDescription, check_spec, check_state, read_checkpoint
from dfl.heads.tasks.bottleneck import BottleneckTask
from dfl.heads.tasks.linear_probe import LinearProbeTask
from dfl.types import FeatureLayer
from tests.heads.small_tasks import ADAM, SPEC, feature_folder, run


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    return feature_folder(tmp_path_factory.mktemp("checkpoint") / "features")


@pytest.fixture(scope="module")
def saved(features: Path) -> Path:
    made = run("fit", LinearProbeTask(optimizer=ADAM), features, max_epochs=2)
    made.save_checkpoint(features.parent / "two.ckpt")
    return features.parent / "two.ckpt"


def _changed(saved: Path, out: Path, change) -> Path:
    content = torch.load(saved)
    change(content)
    torch.save(content, out)
    return out


# what is in it


def test_checkpoint__loads_without_pickle_and_says_what_it_is(saved: Path) -> None:
    content = read_checkpoint(saved)
    about = HeadDescription.load(content)
    assert about.task == "dfl.heads.LinearProbeTask"
    assert about.features == SPEC
    assert (about.architecture, about.origin.backbones, about.origin.preprocess) == ({}, None, None)
    assert HeadDescription.load({"dfl": about.dump()}) == about
    assert all(key.startswith("model.") for key in content["state_dict"])


def test_checkpoint__frozen_weights_are_left_out_and_put_back() -> None:
    def task(seed: int) -> LinearProbeTask:
        torch.manual_seed(seed)
        made = LinearProbeTask({"tiny": backbone})
        made.configure_model()
        return made

    backbone = TimmBackbone("test_vit", pretrained=False, input_size=32)
    first, second = task(0), task(1)
    torch.nn.init.normal_(first.model.linear.weight)
    content = {"state_dict": first.state_dict()}
    assert any(key.startswith("backbone.") for key in content["state_dict"])
    first.on_save_checkpoint(content)
    assert not [key for key in content["state_dict"] if key.startswith("backbone.")]
    recipe = content["dfl"]["backbones"]["tiny"]
    assert recipe["class_path"] == "dfl.backbones.TimmBackbone"
    assert recipe["init_args"]["input_size"] == 32

    second.on_load_checkpoint(content)
    second.load_state_dict(content["state_dict"], strict=True)
    assert torch.equal(second.model.linear.weight, first.model.linear.weight)


# what does not fit, through Lightning's own way of loading


def _drop(content: dict) -> None:
    del content["state_dict"]["model.linear.bias"]


def _add(content: dict) -> None:
    content["state_dict"]["model.second.bias"] = torch.zeros(1)


def _add_backbone(content: dict) -> None:
    content["state_dict"]["backbone.backbones.clip.weight"] = torch.zeros(1)


def _widen(content: dict) -> None:
    content["state_dict"]["model.linear.weight"] = torch.zeros(1, 7)


@pytest.mark.parametrize("what", ["fit", "test"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, "model.linear.bias is missing"),
        (_add, "model.second.bias is not in this model"),
        (_add_backbone, "backbone.backbones.clip.weight is not in this model"),
        (_widen, r"model.linear.weight has the shape \(1, 7\), not \(1, 6\)"),
        (lambda c: c.pop("dfl"), "was not written by a dfl task"),
        (lambda c: c["dfl"].pop("preprocess"), "description of itself is incomplete .'preprocess'"),
    ],
    ids=["missing", "surplus", "surplus backbone", "shape", "foreign", "incomplete"],
)
def test_load__what_does_not_fit(
    saved: Path, features: Path, tmp_path: Path, what: str, change, message: str
) -> None:
    path = _changed(saved, tmp_path / "c.ckpt", change)
    with pytest.raises(CheckpointError, match=message) as caught:
        run(what, LinearProbeTask(optimizer=ADAM), features, max_epochs=3, ckpt_path=path)
    assert "\n" not in str(caught.value)


def test_load__strict_even_for_a_task_that_knows_its_features(saved: Path, features: Path) -> None:
    task = LinearProbeTask(optimizer=ADAM)
    assert task.strict_loading
    run("test", task, features, ckpt_path=saved)
    state = torch.load(saved)["state_dict"]
    assert state.keys() == task.state_dict().keys()
    for key, value in task.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_load__from_lightnings_class_method(saved: Path) -> None:
    task = LinearProbeTask.load_from_checkpoint(saved, weights_only=True)
    assert task.spec == SPEC
    weight = torch.load(saved)["state_dict"]["model.linear.weight"]
    assert torch.equal(task.model.linear.weight, weight)


def test_load__another_head(saved: Path, features: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds .*LinearProbeTask \{\}, this model is .*Bot"):
        run("test", BottleneckTask(2, [4]), features, ckpt_path=saved)
    made = run("fit", BottleneckTask(2, [4], optimizer=ADAM), features)
    made.save_checkpoint(tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match=r"'code_dim': 2.*'code_dim': 3.*use the config"):
        run("test", BottleneckTask(3, [4]), features, ckpt_path=tmp_path / "b.ckpt")


def test_load__other_features(saved: Path, tmp_path: Path) -> None:
    other = (SPEC[0], FeatureLayer("dino.pooled", 2, "ee" * 32))
    features = feature_folder(tmp_path / "features", spec=other)
    message = "the checkpoint does not fit this model: layer 'dino.pooled' has the fingerprint eeee"
    with pytest.raises(CheckpointError, match=message):
        run("test", LinearProbeTask(), features, ckpt_path=saved)


def test_resume__ends_where_an_uninterrupted_run_ends(saved: Path, features: Path) -> None:
    whole, layers = LinearProbeTask(optimizer=ADAM), LinearProbeTask(optimizer=ADAM)
    run("fit", whole, features, max_epochs=4)
    made = run("fit", layers, features, max_epochs=4, ckpt_path=saved)
    assert made.current_epoch == 4
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(layers.state_dict()[key], value, rtol=0, atol=0, msg=key)


# the parts


@pytest.mark.parametrize(
    ("present", "message"),
    [
        (SPEC[:1], r"a does not fit b: layer 'dino.pooled' is missing \(there: clip.pooled\); use"),
        ((*SPEC, FeatureLayer("x.y", 1, "ff")), "in this order, not clip.pooled, dino.pooled, x.y"),
        (SPEC[::-1], "it takes clip.pooled, dino.pooled in this order"),
        ((), r"'clip.pooled' is missing \(there: none\)"),
    ],
)
def test_check_spec__says_where_they_differ(present, message: str) -> None:
    check_spec(SPEC, SPEC, saved_by="a", present_in="b")
    with pytest.raises(CheckpointError, match=message):
        check_spec(SPEC, present, saved_by="a", present_in="b")


def test_check_state__names_the_first_that_differs() -> None:
    own = {"a": torch.zeros(2), "b": torch.zeros(3)}
    check_state(dict(own), own)
    with pytest.raises(CheckpointError, match="a is missing"):
        check_state({}, own)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a checkpoint, or a damaged one"),
        (b"no checkpoint at all", "not a checkpoint, or a damaged one"),
        (b"(lp0\n.", "not a checkpoint, or a damaged one"),  # torch's own reader: IndexError
        (b"}", "not a checkpoint, or a damaged one"),
        (b"X\x05\x00\x00\x00\xff\xff\xff\xff\xff.", "not a checkpoint, or a damaged one"),
        (pickle.dumps(print), "not a checkpoint, or a damaged one"),
    ],
)
def test_read__damage_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(tmp_path / "x.ckpt")
    assert "\n" not in str(caught.value)


def test_read__truncated_missing_folder_and_foreign(saved: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.ckpt"
    half.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"half.ckpt: not a checkpoint, or a damaged one"):
        read_checkpoint(half)
    with pytest.raises(CheckpointError, match=r"none.ckpt: no such checkpoint"):
        read_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_checkpoint(tmp_path)
    torch.save({"state_dict": {}}, half)
    with pytest.raises(CheckpointError, match="not written by a dfl task; train with `dfl fit`"):
        read_checkpoint(half)
