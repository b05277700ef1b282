import argparse
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfl.backbones.weight_files import read_state, weights_in
from dfl.errors import BackboneError


@pytest.fixture
def state():
    return {"0.weight": torch.randn(2, 3), "0.bias": torch.randn(2)}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


class Settings(dict):
    """A class of a training script: the reader does not have it, and does not want it."""


class Run:
    """Does something as soon as it is unpickled."""

    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "anything"])
def test_read__says_where_a_tensor_lies(tmp_path, state, wrapper, old):
    checkpoint = {wrapper: state, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}
    torch.save(checkpoint, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)

    expected = {f"{wrapper}.{name}": tensor for name, tensor in state.items()}
    assert same(read_state(tmp_path / "a.pth"), expected | {"optimizer.state.0.m": torch.ones(2)})


def test_read__knows_safetensors_by_its_content(tmp_path, state):
    save_file(state, tmp_path / "a.bin")

    assert same(read_state(str(tmp_path / "a.bin")), state)


def test_read__joins_the_parts_of_an_index(tmp_path, state):
    save_file({"0.weight": state["0.weight"]}, tmp_path / "model-1.safetensors")
    save_file({"0.bias": state["0.bias"]}, tmp_path / "model-2.safetensors")
    table = {"0.weight": "model-1.safetensors", "0.bias": "model-2.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))

    assert same(read_state(index), state)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=1e-3),
        Settings(lr=np.float64(1e-3)),
        Path("runs"),
        {"best": np.zeros(3), "used": {int, Settings}},
    ],
    ids=["namespace", "own class", "path", "numpy"],
)
def test_read__leaves_other_objects_alone(tmp_path, state, beside, old):
    checkpoint = {"model": state, "args": beside}
    torch.save(checkpoint, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)

    expected = {f"model.{name}": tensor for name, tensor in state.items()}
    assert same(read_state(tmp_path / "a.pth"), expected)


@pytest.mark.parametrize("old", [False, True])
def test_read__takes_the_tensors_of_a_pickled_module(tmp_path, old):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    torch.save(model, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)

    assert same(read_state(tmp_path / "a.pth"), model.state_dict())


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("half", [False, True])
def test_read__takes_the_tensors_of_an_archive_without_its_code(tmp_path, half):
    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
            self.size = 32
            self.sizes = [1, 2]

        def forward(self, x):
            return self.visual(x) * len(self.sizes)

    model = Tower().half() if half else Tower()
    torch.jit.script(model).save(tmp_path / "a.pt")

    assert same(read_state(tmp_path / "a.pt"), model.state_dict())


@pytest.mark.parametrize("call", [os.system, eval, exec])
@pytest.mark.parametrize("old", [False, True])
def test_read__runs_no_commands(tmp_path, state, call, old):
    mark = tmp_path / "mark"
    checkpoint = {"model": state, "args": Run(call, f"open({str(mark)!r}, 'w')")}
    torch.save(checkpoint, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)

    with pytest.raises(BackboneError, match=r"unpickling it would run \w+\.\w+: it is no file of"):
        read_state(tmp_path / "a.pth")
    assert not mark.exists()


def test_read__calls_nothing_that_a_pickle_names(tmp_path, state):
    mark = tmp_path / "mark"
    checkpoint = {"model": state, "args": Run(Path.touch, mark)}
    torch.save(checkpoint, tmp_path / "a.pth")

    assert len(read_state(tmp_path / "a.pth")) == 2
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; get it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
            "Git LFS pointer.*lfs pull",
        ),
        (
            b"<!DOCTYPE html><html><head><title>Sign in\nto go on</title>",
            r"is a web page \(Sign in to go on\), which was saved in place of the file",
        ),
        (b'{"architecture": "vit"}', "is JSON text, such as a model's configuration"),
        (b"\x1f\x8b\x08" + bytes(20), "is compressed by gzip: unpack it"),
        (b"\x89HDF\r\n" + bytes(20), "is an HDF5 file"),
        (
            b"not weights at all, only text",
            "cannot be read as safetensors or as a torch checkpoint",
        ),
        (b"\x80\x02.", "cannot be read .*compare that with its source"),
    ],
)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_read__says_what_is_no_weights(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BackboneError, match=message) as info:
        read_state(tmp_path / name)
    assert "\n" not in str(info.value)
    assert "\x1b" not in str(info.value)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "old torch"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.98])
def test_read__says_that_a_file_is_cut_short(tmp_path, kind, kept):
    path, state = tmp_path / "a.pth", {f"{i}": torch.randn(30, 30) for i in range(5)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "torch")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])

    with pytest.raises(BackboneError, match=r"cut short.*get it again") as info:
        read_state(path)
    assert "weights_only" not in str(info.value)


def test_read__says_what_is_in_a_zip(tmp_path, state):
    torch.save(state, tmp_path / "net.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.write(tmp_path / "net.pth", "release/net.pth")
        archive.writestr("release/README.md", "how to")

    message = r"a zip archive of something else \(release/net.pth, release/README.md\); unpack it"
    with pytest.raises(BackboneError, match=message):
        read_state(tmp_path / "a.pth")


def test_read__says_that_arrays_of_numpy_are_no_torch(tmp_path):
    np.savez(tmp_path / "a.npz", weight=np.zeros(3))

    with pytest.raises(BackboneError, match="a NumPy archive, as authors who use JAX publish"):
        read_state(tmp_path / "a.npz")


def test_read__says_what_is_missing_or_a_folder(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pth")

    with pytest.raises(BackboneError, match="no such file"):
        read_state(tmp_path / "b.pth")
    with pytest.raises(BackboneError, match=r"is a folder; give the file in it: a\.pth"):
        read_state(tmp_path)
    with pytest.raises(BackboneError, match="holds no tensors; give the file of a model's"):
        read_state(tmp_path / "a.pth")


def test_weights_in__prefers_safetensors_and_does_not_guess(tmp_path):
    for name in ("pytorch_model.bin", "model.safetensors", "config.json"):
        (tmp_path / name).touch()
    assert weights_in(tmp_path) == tmp_path / "model.safetensors"

    (tmp_path / "other.safetensors").touch()
    with pytest.raises(BackboneError, match=r"there are model\.safetensors, other\.saf"):
        weights_in(tmp_path)
