import pytest
import timm
import torch
from torch import nn

from dfl.backbones.weights import load_strictly, looks, state_digest
from dfl.errors import BackboneError


@pytest.fixture
def state():
    return {"0.weight": torch.randn(2, 3), "0.bias": torch.randn(2)}


def test_load_strictly__counts_and_names_what_differs(state):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))

    message = r"weights x do not fit the model: 2 missing \(1.weight, 1.bias\), 1 surplus \(z\)"
    with pytest.raises(BackboneError, match=message):
        load_strictly(model, state | {"z": torch.zeros(1)}, source="weights x")


def test_load_strictly__refuses_other_shapes(state):
    model = nn.Sequential(nn.Linear(3, 2))

    with pytest.raises(BackboneError, match=r"0.bias is \[4\], not \[2\]"):
        load_strictly(model, state | {"0.bias": torch.zeros(4)}, source="weights x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_load_strictly__refuses_values_that_are_not_finite(state, value):
    state["0.weight"][0, 1] = value

    message = r"weights x hold 1 values that are not finite, in 0\.weight: the file is damaged"
    with pytest.raises(BackboneError, match=message):
        load_strictly(nn.Sequential(nn.Linear(3, 2)), state, source="weights x")


def test_load_strictly__refuses_values_that_no_network_has(state):
    model, large = nn.Sequential(nn.Linear(3, 2)), state | {"0.bias": torch.tensor([1e6, -1e12])}
    load_strictly(model, large, source="weights x")

    message = r"hold values up to 1e\+30, in 0\.bias, whose squares float32 cannot hold: the file"
    with pytest.raises(BackboneError, match=message):
        load_strictly(model, state | {"0.bias": torch.tensor([0, -1e30])}, source="weights x")


def test_load_strictly__says_what_other_network_it_is():
    small = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    state = {f"blocks.{i}.norm1.weight": torch.ones(384) for i in range(6)}
    state["patch_embed.proj.weight"] = torch.ones(384, 3, 32, 32)

    message = (
        r"look like another network \(width 384, patches of 32 pixels, 6 blocks; the model has "
        r"width 192, patches of 16 pixels, 12 blocks\)"
    )
    with pytest.raises(BackboneError, match=message):
        load_strictly(small, state, source="weights x")


def test_looks__of_a_residual_network():
    state = timm.create_model("resnet18", num_classes=0).state_dict()

    assert looks(state) == "a first convolution of 7x7 pixels to 64 channels, 2, 2, 2, 2 blocks"


def test_load_strictly__does_without_the_counter_of_batches():
    model, old = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    nn.init.normal_(old.running_mean)
    state = {n: t for n, t in old.state_dict().items() if n != "num_batches_tracked"}

    load_strictly(model, state, source="weights x")

    assert torch.equal(model.running_mean, old.running_mean)


def test_state_digest__sees_names_types_shapes_and_bytes(state):
    digest = state_digest(state)

    assert digest == state_digest(dict(reversed(state.items())))
    assert digest != state_digest({"1.weight": state["0.weight"], "0.bias": state["0.bias"]})
    assert digest != state_digest(state | {"0.bias": state["0.bias"].double()})
    assert digest != state_digest(state | {"0.weight": state["0.weight"].reshape(3, 2)})
    assert digest != state_digest(state | {"0.bias": state["0.bias"] + 1e-6})
    assert digest == state_digest(state | {"0.weight": state["0.weight"].T.contiguous().T})
    assert state_digest({"n": torch.tensor(3)}) != state_digest({"n": torch.tensor(4)})
