import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfl.backbones.weights import load_strictly, read_state, state_digest
from dfl.errors import BackboneError


@pytest.fixture
def state():
    return {"0.weight": torch.randn(2, 3), "0.bias": torch.randn(2)}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "teacher"])
def test_read_state__takes_off_one_wrapper(tmp_path, state, wrapper):
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "a.pth")

    assert same(read_state(tmp_path / "a.pth"), state)


def test_read_state__reads_safetensors(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors")

    assert same(read_state(str(tmp_path / "a.safetensors")), state)


def test_read_state__takes_module_off_if_all_have_it(tmp_path, state):
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    torch.save({"module.a": state["0.bias"], "b": state["0.bias"]}, tmp_path / "b.pth")

    assert same(read_state(tmp_path / "a.pth"), state)
    assert set(read_state(tmp_path / "b.pth")) == {"module.a", "b"}


def test_read_state__does_not_guess_between_two_wrappers(tmp_path, state):
    torch.save({"teacher": state, "model": state}, tmp_path / "a.pth")

    with pytest.raises(BackboneError, match="teacher, model are no tensor"):
        read_state(tmp_path / "a.pth")


@pytest.mark.parametrize("text", [b"not weights at all, only text", b"hello world", b"\x80\x02."])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_read_state__refuses_damaged_files(tmp_path, name, text):
    (tmp_path / name).write_bytes(text)

    with pytest.raises(BackboneError, match="not a safetensors file or a torch checkpoint") as info:
        read_state(tmp_path / name)
    assert "\n" not in str(info.value)


def test_read_state__runs_no_code(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")

    with pytest.raises(BackboneError, match="checkpoint of tensors only"):
        read_state(tmp_path / "a.pth")


def test_read_state__refuses_missing_and_empty_files(tmp_path):
    torch.save({}, tmp_path / "a.pth")

    with pytest.raises(BackboneError, match="no such file"):
        read_state(tmp_path / "b.pth")
    with pytest.raises(BackboneError, match="holds no tensors by name"):
        read_state(tmp_path / "a.pth")


def test_load_strictly__counts_and_names_what_differs(state):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))

    message = r"weights x do not fit the model: 2 missing \(1.weight, 1.bias\), 1 surplus \(z\)"
    with pytest.raises(BackboneError, match=message):
        load_strictly(model, state | {"z": torch.zeros(1)}, source="weights x")


def test_load_strictly__refuses_other_shapes(state):
    model = nn.Sequential(nn.Linear(3, 2))

    with pytest.raises(BackboneError, match=r"0.bias is \[4\], not \[2\]"):
        load_strictly(model, state | {"0.bias": torch.zeros(4)}, source="weights x")


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
