"""Precision: what is taken where, and what stays float32."""

import copy
import pickle

import pytest
import torch
from torch import nn

from dfl.backbones import precision
from dfl.backbones.precision import (
    exact_float32,
    faster_precision,
    settle_precision,
    suit_frozen,
)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile", "AMX"),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16", "AVX-512 BF16"),
        ("Features\t: fp asimd bf16", "Arm BF16"),
        ("flags\t\t: fpu avx2 avx512f", None),
        ("", None),
    ],
)
def test_auto__by_the_processor(flags: str, name, tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(precision, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(precision.platform, "system", lambda: "Linux")
    precision._bf16_of_cpu.cache_clear()
    caplog.set_level("INFO")
    chosen = settle_precision("auto", "cpu")
    assert settle_precision(None, "cpu") == "32-true"
    precision._bf16_of_cpu.cache_clear()
    assert chosen == ("32-true" if name is None else "bf16-mixed")
    why = f"the processor has {name}" if name else "no fast 16-bit arithmetic is known of this cpu"
    assert caplog.messages == [f"precision: {chosen}, since {why}"]


@pytest.mark.parametrize("asked", ["auto", None])
@pytest.mark.parametrize(("has", "chosen"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_auto__by_the_gpu_and_by_default(asked, has: bool, chosen: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert settle_precision(asked, "cuda") == chosen


@pytest.mark.parametrize(("asked", "lines"), [("auto", 1), (None, 0)])
def test_auto__elsewhere_float32(asked, lines: int, caplog) -> None:
    caplog.set_level("INFO")
    assert settle_precision(asked, "mps") == "32-true"
    assert len(caplog.messages) == lines


def test_asked_for__is_kept_without_a_word(caplog) -> None:
    caplog.set_level("INFO")
    assert settle_precision("bf16-true", "cpu") == "bf16-true"
    assert settle_precision("32-true", "cuda", recorded="bf16-mixed") == "32-true"
    assert not caplog.messages


@pytest.mark.parametrize(
    ("recorded", "device", "has_bf16", "taken"),
    [
        ("32-true", "cuda", True, "32-true"),
        ("bf16-mixed", "cuda", True, "bf16-mixed"),
        ("bf16-true", "cuda", True, "bf16-true"),
        ("16-mixed", "cuda", False, "16-mixed"),
        ("bf16-mixed", "cpu", True, "bf16-mixed"),
        ("bf16-mixed", "cuda", False, "32-true"),
        ("bf16-mixed", "cpu", False, "32-true"),
        ("16-mixed", "cpu", True, "32-true"),
        ("bf16-mixed", "mps", True, "32-true"),
        ("64-true", "cuda", True, "32-true"),
    ],
)
def test_recorded__where_the_device_is_fast_in_it(
    recorded: str, device: str, has_bf16: bool, taken: str, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.setattr(precision, "_bf16_of_cpu", lambda: "AMX" if has_bf16 else None)
    caplog.set_level("INFO")
    assert settle_precision(None, device, recorded=recorded) == taken
    said = {
        "32-true": f"precision: 32-true, since no fast arithmetic is known of this {device} for "
        f"{recorded}, in which the detector was trained"
    }.get(taken, f"precision: {taken}, in which the detector was trained")
    assert caplog.messages == ([] if recorded == "32-true" else [said])


@pytest.mark.parametrize(
    ("asked", "device", "has_bf16", "faster"),
    [
        ("bf16-mixed", "cuda", False, "16-mixed"),
        ("bf16-mixed", "cuda", True, None),
        ("bf16-mixed", "cpu", False, "32-true"),
        ("16-mixed", "cuda", False, None),
        ("16-mixed", "cpu", True, "bf16-mixed"),
        ("bf16-mixed", "mps", False, None),
        ("32-true", "cpu", False, None),
        ("64-true", "cuda", True, None),
    ],
)
def test_faster_precision__where_one_is_imitated(
    asked: str, device: str, has_bf16: bool, faster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.setattr(precision, "_bf16_of_cpu", lambda: "AMX" if has_bf16 else None)
    assert faster_precision(asked, device) == faster


def test_exact_float32__on_a_gpu_and_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    newer = getattr(cudnn, "conv", None)
    with exact_float32(torch.device("cuda")):
        assert not cudnn.allow_tf32
        assert newer is None or newer.fp32_precision == "ieee"
    assert cudnn.allow_tf32
    assert newer is None or newer.fp32_precision == "tf32"
    with exact_float32(torch.device("cpu")):  # where threads would undo each other's switch
        assert cudnn.allow_tf32


def test_exact_float32__leaves_what_is_exact_as_it_is() -> None:
    cudnn = torch.backends.cudnn
    newer = getattr(cudnn, "conv", None)
    if newer is None:
        pytest.skip("torch has this switch since 2.9")
    newer.fp32_precision = "ieee"  # after which the older one cannot be read
    try:
        with exact_float32(torch.device("cuda")):
            assert newer.fp32_precision == "ieee"
        assert newer.fp32_precision == "ieee"
    finally:
        cudnn.allow_tf32 = True


def _sent(network: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(network))


@pytest.mark.parametrize("how", [lambda network: network, copy.deepcopy, _sent])
def test_suit_frozen__the_pixels_stay_float32_under_autocast(how) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    names = list(network.state_dict())
    suit_frozen(network)
    network = how(network)
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        exact = network[0](image)
        network[0].weight.mul_(2)  # its own weights, not those of what it was copied from
        network[0].bias.mul_(2)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network[0](image), 2 * exact)
            assert network(image).dtype == torch.bfloat16
    assert list(network.state_dict()) == names
    assert network[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_suit_frozen__a_cast_network_sees_pixels_of_its_own_format() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3)).to(torch.bfloat16)
    suit_frozen(network)
    image = torch.rand(1, 3, 8, 8)
    assert network(image.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert network(image).dtype == torch.bfloat16
