from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from dfl.errors import CheckpointError, HeadError
from dfl.heads.estimators import rbf_svm
from dfl.heads.estimators.encoder_step import BottleneckEncoder, encode_rows
from dfl.heads.estimators.reductions import bottleneck, reduced
from dfl.heads.modules.bottleneck import Bottleneck
from tests.heads.sklearn_examples import DIM, SPEC, encoder, images


def trained() -> Bottleneck:
    torch.manual_seed(0)
    model = Bottleneck(DIM, hidden_dims=[16, 8], code_dim=3).train()
    model(torch.from_numpy(images()[0]))  # one pass sets the statistics
    return model.eval()


def checkpoint_of(model: nn.Module, path: Path) -> Path:
    layers = [{"name": p.name, "dim": p.dim, "fingerprint": p.fingerprint} for p in SPEC]
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "dfl": {"features": layers}}, path)
    return path


def test_transform__equals_torch(tmp_path: Path) -> None:
    model = trained()
    features, _ = images(seed=1)
    with torch.no_grad():
        expected = model.encode(torch.from_numpy(features)).numpy()

    read = BottleneckEncoder.from_checkpoint(checkpoint_of(model, tmp_path / "b.ckpt"))
    code = read.transform(features)

    np.testing.assert_allclose(code, expected, rtol=1e-6, atol=1e-6)
    assert code.dtype == np.float32
    assert read.feature_spec == SPEC


def test_transform__equals_a_sequential_written_out() -> None:
    numpy_side = encoder()
    features, _ = images()
    layers = nn.Sequential(nn.Linear(DIM, 6), nn.GELU(), nn.Linear(6, 3))
    for layer, weight, bias in zip(layers[::2], numpy_side.weights, numpy_side.biases, strict=True):
        layer.weight.data, layer.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    standard = (features - numpy_side.mean) / np.sqrt(numpy_side.variance + np.float32(1e-5))
    with torch.no_grad():
        expected = layers(torch.from_numpy(standard)).numpy()

    np.testing.assert_allclose(numpy_side.transform(features), expected, rtol=1e-6, atol=1e-6)


def test_encoder__follows_sklearn() -> None:
    original = encoder()
    copied = clone(original)
    features, label = images()

    check_is_fitted(original)
    assert set(original.get_params()) == {"mean", "variance", "weights", "biases", "features"}
    assert copied.weights[0] is not original.weights[0]
    assert (copied.fit(features, label).transform(features) == original.transform(features)).all()
    assert (make_pipeline(original).transform(features) == original.transform(features)).all()
    assert "BottleneckEncoder" in repr(original)


def test_encoder__does_not_change_its_input() -> None:
    features, _ = images()
    before = features.copy()

    encoder().transform(features)

    assert (features == before).all()


def test_fit__other_width() -> None:
    with pytest.raises(
        HeadError, match=r"shape \(2, 5\) .* trained on 12 columns \(clip.pooled, dino.pooled\)"
    ):
        encoder().fit(np.zeros((2, 5), dtype=np.float32))


def test_bottleneck__missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.ckpt: no such checkpoint; name the .ckpt"):
        reduced(rbf_svm(), bottleneck(tmp_path / "no.ckpt"))


def test_bottleneck__damaged_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "half.ckpt"
    path.write_bytes(checkpoint_of(trained(), path).read_bytes()[:500])

    with pytest.raises(CheckpointError, match=r"half.ckpt: not a readable checkpoint \(.+\)$"):
        reduced(rbf_svm(), bottleneck(path))


@pytest.mark.parametrize("key", ["model.normalise.running_mean", "model.encoder.0.bias"])
def test_bottleneck__checkpoint_of_something_else(tmp_path: Path, key: str) -> None:
    path = checkpoint_of(trained(), tmp_path / "b.ckpt")
    content = torch.load(path)
    del content["state_dict"][key]
    torch.save(content, path)

    with pytest.raises(CheckpointError, match=f"not the checkpoint of a bottleneck .*{key}"):
        reduced(rbf_svm(), bottleneck(path))


def test_bottleneck__layers_in_other_places(tmp_path: Path) -> None:
    path = checkpoint_of(trained(), tmp_path / "b.ckpt")
    content = torch.load(path)
    state = content["state_dict"]
    state["model.encoder.1.weight"] = torch.zeros(3)
    torch.save(content, path)

    with pytest.raises(CheckpointError, match=r"linear layers at \[0, 1, 2, 4\], expected 0, 2, 4"):
        reduced(rbf_svm(), bottleneck(path))


def arrays() -> tuple:
    example = encoder()
    return example.mean, example.variance, example.weights, example.biases


def test_encode_rows__equals_torch() -> None:
    features, _ = images()
    mean, variance, weights, biases = arrays()
    hidden = torch.from_numpy((features - mean) / np.sqrt(variance + np.float32(1e-5)))
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = nn.functional.gelu(hidden) if i else hidden
        hidden = nn.functional.linear(hidden, torch.from_numpy(weight), torch.from_numpy(bias))

    code = encode_rows(features, mean, variance, weights, biases)

    np.testing.assert_allclose(code, hidden.numpy(), rtol=1e-5, atol=1e-5)
    assert code.dtype == np.float32


def test_encode_rows__blocks_do_not_matter() -> None:
    features, _ = images()
    whole = encode_rows(features, *arrays())

    np.testing.assert_allclose(
        encode_rows(features, *arrays(), block=7), whole, rtol=1e-5, atol=1e-6
    )


def test_encode_rows__no_rows() -> None:
    assert encode_rows(np.empty((0, DIM), dtype=np.float32), *arrays()).shape == (0, 3)
