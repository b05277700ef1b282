"""The numeric precision of frozen backbones, and what the hardware is fast at."""

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Literal, cast, get_args

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

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


def settle_precision(
    asked: Precision | None, device: str, *, recorded: str | None = None
) -> SettledPrecision:
    """Choose a precision, and say in one line what was taken and why, unless a user has named it.

    Args:
        asked: A precision; ``auto`` for what the hardware multiplies fast; None for the recorded
            one or, where there is none, for ``auto`` on an accelerator and ``32-true`` on a CPU,
            of which some have 16-bit arithmetic and some have not.
        device: Kind of device: ``cpu``, ``cuda``, ...
        recorded: The precision of what a head was trained on. One that this device has no fast
            arithmetic for gives way to ``32-true``.

    Returns:
        The precision.
    """
    if asked is not None and asked != "auto":
        return asked
    if asked is None and recorded is not None:
        return _settle_recorded(recorded, device)
    fast, why = _fast_on(device)
    if asked == "auto" or (device != "cpu" and fast != "32-true"):
        logger.info("precision: %s, since %s", fast, why)
        return fast
    return "32-true"


def is_fast(precision: str, device: str) -> bool:
    """Say whether a device has arithmetic of its own for a precision, not an imitation.

    Args:
        precision: The precision.
        device: Kind of device.
    """
    if precision.startswith("bf16"):
        return _fast_on(device)[0] == "bf16-mixed"
    return precision == "32-true" or (precision == "16-mixed" and device == "cuda")


def faster_precision(precision: str, device: str) -> SettledPrecision | None:
    """Name a precision for a device that only imitates this one; None where nothing is known.

    Args:
        precision: The precision.
        device: Kind of device.
    """
    if device not in ("cpu", "cuda") or is_fast(precision, device):
        return None
    return _fast_on(device)[0] if precision in _AUTOCAST else None


def _settle_recorded(recorded: str, device: str) -> SettledPrecision:
    if recorded == "32-true":
        return "32-true"
    if recorded in get_args(SettledPrecision) and is_fast(recorded, device):
        logger.info("precision: %s, in which the detector was trained", recorded)
        return cast(SettledPrecision, recorded)
    logger.info(
        "precision: 32-true, since no fast arithmetic is known of this %s for %s, in which the "
        "detector was trained",
        device,
        recorded,
    )
    return "32-true"


def _fast_on(device: str) -> tuple[SettledPrecision, str]:
    """Name the precision that a device is fastest in, and why."""
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


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Let a GPU multiply float32 as it is: torch lets convolutions round it to TF32 by default.

    Args:
        device: Where the network is.
    """
    cudnn = torch.backends.cudnn
    # the switch that came with torch 2.9, unlike the older one, can be read whatever was set how;
    # both are set, since what compiles still reads the older one
    newer = getattr(cudnn, "conv", None)
    rounds = cudnn.allow_tf32 if newer is None else newer.fp32_precision == "tf32"
    if device.type != "cuda" or not rounds:
        yield
        return
    try:
        cudnn.allow_tf32 = False
        if newer is not None:
            newer.fp32_precision = "ieee"
        yield
    finally:
        cudnn.allow_tf32 = True


def suit_frozen(network: nn.Module) -> None:
    """Let a frozen network be fast in 16 bits, and see the pixels in float32 all the same.

    The convolution that sees them stays in float32 where autocast is on: it costs next to nothing,
    and 16 bits blur just the faint traces that a generator leaves (for CLIP ViT-B/16 in bfloat16
    the lowest cosine to float32 rises from 0.997 to above 0.999).

    Args:
        network: Changed in place.
    """
    # convolutions in 16 bits are several times faster on this layout; it changes nothing else
    network.to(memory_format=torch.channels_last)
    if (stem := stem_of(network)) is not None:
        # a method of its own, so that names and types of modules stay as the network's code expects
        stem.forward = _WithoutAutocast(stem)  # type: ignore[method-assign, assignment]


def cast_network(network: nn.Module, precision: SettledPrecision) -> None:
    """Give a frozen network's tensors the format that its precision runs fastest on.

    With a mixed precision the weights of convolutions and linear layers are cast once, which
    autocast would do again in every pass; those of the convolution that sees the pixels stay.

    Args:
        network: Changed in place.
        precision: The precision.
    """
    if precision == "bf16-true":
        network.to(torch.bfloat16)
    elif (dtype := _AUTOCAST.get(precision)) is not None:
        stem = stem_of(network)
        for module in network.modules():
            if type(module) in (nn.Linear, nn.Conv2d) and module is not stem:
                module.to(dtype)


def stem_of(network: nn.Module) -> nn.Conv2d | None:
    """Find the convolution that sees the pixels, None where there is none."""
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    return first if first is not None and first.in_channels == 3 else None


class _WithoutAutocast:
    """A convolution's own forward pass, in the format of its weights whatever autocast is on.

    Args:
        module: The convolution.
    """

    def __init__(self, module: nn.Conv2d) -> None:
        self._module = module

    def __call__(self, image: Tensor) -> Tensor:
        module = self._module
        if image.is_meta or not torch.is_autocast_enabled(image.device.type):
            return type(module).forward(module, image)
        with torch.autocast(image.device.type, enabled=False):
            return type(module).forward(module, image.to(module.weight.dtype))


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
