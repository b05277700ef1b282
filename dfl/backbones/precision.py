"""The numeric precision of frozen backbones, and what the hardware is fast at."""

import platform
from functools import cache
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor, nn

SettledPrecision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"]
Precision = Literal["auto", SettledPrecision]
"""Lightning's names: ``mixed`` multiplies in 16 bits and keeps pixels, norms and sums in 32;
``true`` holds everything in that format."""

_AUTOCAST: Final = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# As the Linux kernel names what multiplies bfloat16 natively; the first one is the fastest.
_BF16_FLAGS: Final = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 BF16",
    "bf16": "Arm BF16",
}


def settle_precision(asked: Precision, device: str) -> tuple[SettledPrecision, str]:
    """Choose a precision by what the hardware multiplies fast.

    Args:
        asked: A precision, or ``auto``.
        device: Kind of device: ``cpu``, ``cuda``, ...

    Returns:
        The precision, and a few words on why.
    """
    if asked != "auto":
        return asked, "as asked for"
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "the GPU multiplies bfloat16"
        return "16-mixed", "the GPU multiplies float16 but not bfloat16"
    if device == "cpu" and (name := _bf16_of_cpu()):
        return "bf16-mixed", f"the processor has {name}"
    return "32-true", f"no fast 16-bit arithmetic is known of this {device}"


def autocast(precision: SettledPrecision, device: str) -> torch.autocast:
    """Give the context in which a network of this precision runs; it holds for one thread.

    Args:
        precision: The precision.
        device: Kind of device.
    """
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None)


def cast_network(network: nn.Module, precision: SettledPrecision) -> None:
    """Give a frozen network's tensors the format and layout that its precision runs fastest on.

    With a mixed precision the weights of convolutions and linear layers are cast once, which
    autocast would do again in every pass. The convolution that sees the pixels stays in float32:
    it costs next to nothing, and 16 bits blur just the faint traces that a generator leaves (for
    CLIP ViT-B/16 in bfloat16 the lowest cosine to float32 rises from 0.997 to above 0.999).

    Args:
        network: Changed in place.
        precision: The precision.
    """
    # convolutions in 16 bits are several times faster on this layout; it changes nothing else
    network.to(memory_format=torch.channels_last)
    if precision == "bf16-true":
        network.to(torch.bfloat16)
    elif (dtype := _AUTOCAST.get(precision)) is not None:
        stem = stem_of(network)
        for module in network.modules():
            if type(module) in (nn.Linear, nn.Conv2d) and module is not stem:
                module.to(dtype)
        if stem is not None:
            # a method of its own, so that names and types of modules stay as the network's code
            # expects them
            stem.forward = _InFloat32(stem)  # type: ignore[method-assign, assignment]


def stem_of(network: nn.Module) -> nn.Conv2d | None:
    """Find the convolution that sees the pixels, None where there is none."""
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    return first if first is not None and first.in_channels == 3 else None


class _InFloat32:
    """A convolution's own forward pass, in float32 whatever autocast is on.

    Args:
        module: The convolution.
    """

    def __init__(self, module: nn.Conv2d) -> None:
        self._forward = module.forward

    def __call__(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            return self._forward(image.float())


@cache
def _bf16_of_cpu() -> str | None:
    """Name the unit of the processor that multiplies bfloat16, None where none is known."""
    if platform.system() != "Linux":
        return None
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    known = set(flags.partition(":")[2].split())
    return next((name for flag, name in _BF16_FLAGS.items() if flag in known), None)
