"""Precision: what `auto` takes where."""

import pytest
import torch

from dfl.backbones import precision
from dfl.backbones.precision import settle_precision


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
def test_auto__by_the_processor(flags: str, name, tmp_path, monkeypatch) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(precision, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(precision.platform, "system", lambda: "Linux")
    precision._bf16_of_cpu.cache_clear()
    chosen, why = settle_precision("auto", "cpu")
    precision._bf16_of_cpu.cache_clear()
    assert chosen == ("32-true" if name is None else "bf16-mixed")
    assert name is None or name in why


@pytest.mark.parametrize(("has", "chosen"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_auto__by_the_gpu(has: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert settle_precision("auto", "cuda")[0] == chosen


def test_auto__elsewhere_float32() -> None:
    assert settle_precision("auto", "mps")[0] == "32-true"


def test_asked_for__is_kept() -> None:
    assert settle_precision("bf16-true", "cpu")[0] == "bf16-true"
