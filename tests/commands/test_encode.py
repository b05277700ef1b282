from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.commands.encode import encode
from dfl.errors import CheckpointError, FeatureError
from dfl.features import FeatureStore
from dfl.heads.tasks.bottleneck import BottleneckTask
from dfl.heads.tasks.linear_probe import LinearProbeTask
from dfl.types import FeatureLayer
from tests.heads.small_tasks import ADAM, SPEC, feature_folder, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A feature folder, a bottleneck trained on its second layer, and a linear probe."""
    root = tmp_path_factory.mktemp("encode")
    feature_folder(root / "features")
    task = BottleneckTask(3, [5], optimizer=ADAM)
    made = run("fit", task, root / "features", layers=["dino"])
    made.save_checkpoint(root / "bottleneck.ckpt")
    probe = run("fit", LinearProbeTask(optimizer=ADAM), root / "features")
    probe.save_checkpoint(root / "probe.ckpt")
    return root


def test_encode__codes_are_those_of_torch(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dfl.features.matrices.BLOCK_BYTES", 300)
    store = encode(folder / "features", folder / "bottleneck.ckpt", tmp_path / "codes")
    task = BottleneckTask.load_from_checkpoint(
        folder / "bottleneck.ckpt", code_dim=3, hidden_dims=[5], weights_only=True
    )
    source = FeatureStore.open(folder / "features")
    with torch.no_grad():
        expected = task.eval().model.encode(torch.from_numpy(source.matrix(["dino"]).copy()))
    np.testing.assert_allclose(store.matrix(), expected, rtol=1e-5, atol=1e-6)
    assert store.layers() == ["code"]
    assert store.manifest.frame.equals(source.manifest.frame)


def test_encode__codes_are_not_the_features_of_an_extraction(folder: Path, tmp_path: Path) -> None:
    store = encode(folder / "features", folder / "bottleneck.ckpt", tmp_path / "codes")
    source = str(FeatureStore.open(folder / "features").metadata["fingerprint"])
    with pytest.raises(FeatureError, match="holds other features"):
        FeatureStore.find(tmp_path / "codes", source, overwrite=False, advice="")
    assert store.metadata["backbones"] is None
    assert store.metadata["encoded_from"] == str(folder / "features")


def test_encode__fingerprint_by_bottleneck_and_features(folder: Path, tmp_path: Path) -> None:
    first = encode(folder / "features", folder / "bottleneck.ckpt", tmp_path / "a")
    again = encode(folder / "features", folder / "bottleneck.ckpt", tmp_path / "b")
    content = torch.load(folder / "bottleneck.ckpt")
    content["state_dict"]["model.encoder.0.bias"] += 1
    torch.save(content, tmp_path / "other.ckpt")
    other = encode(folder / "features", tmp_path / "other.ckpt", tmp_path / "c")
    assert first.spec == again.spec
    assert first.spec[0].fingerprint != other.spec[0].fingerprint


def test_encode__mistakes(folder: Path, tmp_path: Path) -> None:
    bottleneck = folder / "bottleneck.ckpt"
    other = (SPEC[0], FeatureLayer("dino.pooled", 2, "ee" * 32))
    changed = feature_folder(tmp_path / "changed", spec=other)
    with pytest.raises(FeatureError, match=r"changed does not fit .*bottleneck.ckpt: layer 'dino"):
        encode(changed, bottleneck, tmp_path / "codes")
    with pytest.raises(CheckpointError, match="not the checkpoint of a bottleneck"):
        encode(folder / "features", folder / "probe.ckpt", tmp_path / "codes")
    assert not (tmp_path / "codes").exists()
    encode(folder / "features", bottleneck, tmp_path / "codes")
    with pytest.raises(FeatureError, match="already holds these features; name another, or"):
        encode(folder / "features", bottleneck, tmp_path / "codes")
    encode(folder / "features", bottleneck, tmp_path / "codes", overwrite=True)
