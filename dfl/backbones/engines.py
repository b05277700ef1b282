"""What carries out a network's forward pass: torch as it is, torch.compile, or OpenVINO."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dfl.backbones.base import Backbone
from dfl.backbones.precision import SettledPrecision, stem_of
from dfl.errors import BackboneError, one_line

Engine = Literal["eager", "compile", "openvino"]
Encode = Callable[[Tensor], dict[str, Tensor]]

MICRO_BATCH: Final = 8
"""Images that one thread of a CPU takes at a time, and the fixed input of what is compiled for it:
large enough for full speed, small enough that a few hundred images keep many threads busy."""

_HINTS: Final = {"32-true": "f32", "bf16-mixed": "bf16"}


def check_engine(engine: Engine, device: str, precision: SettledPrecision) -> None:
    """Refuse an engine that cannot run here.

    Args:
        engine: Which engine.
        device: Kind of device: ``cpu``, ``cuda``, ...
        precision: The precision it is to run in.

    Raises:
        BackboneError: If OpenVINO is not installed, or does not run so.
    """
    if engine != "openvino":
        return
    if find_spec("openvino") is None:
        raise BackboneError(
            'engine: openvino is not installed; install it with pip install "dfl[openvino]", '
            "or choose eager or compile"
        )
    if device != "cpu" or precision not in _HINTS:
        raise BackboneError(
            f"engine: openvino runs on cpu in {' or '.join(_HINTS)}, not on {device} in "
            f"{precision}; choose eager or compile"
        )


def engine_for(
    backbone: Backbone, engine: Engine, precision: SettledPrecision, *, threads: int | None
) -> Encode:
    """Build what runs a backbone's network.

    Args:
        backbone: Already cast, on its device.
        engine: Which engine.
        precision: The precision.
        threads: How many threads call it at once, each on its own, or None on an accelerator.

    Returns:
        A stand-in for ``backbone.encode``: normalised images ``(N, 3, input_size, input_size)`` in,
        ``(N, D)`` by layer out. A backbone without weights runs as it is.

    Raises:
        BackboneError: If OpenVINO cannot convert the network.
    """
    if next(backbone.network.parameters(), None) is None:
        return backbone.encode  # nothing to multiply faster
    if engine == "openvino":
        return _in_micro_batches(_openvino(backbone, precision, threads or 1))
    if engine == "compile":
        compiled = torch.compile(backbone.encode, dynamic=False)
        return compiled if threads is None else _in_micro_batches(compiled)
    return backbone.encode


def _in_micro_batches(encode: Encode) -> Encode:
    """Call something that takes exactly ``MICRO_BATCH`` images, filling up with black ones."""

    def filled(image: Tensor) -> dict[str, Tensor]:
        missing = -len(image) % MICRO_BATCH
        if missing:
            image = torch.cat([image, image.new_zeros(missing, *image.shape[1:])])
        taken = [encode(chunk.contiguous()) for chunk in torch.split(image, MICRO_BATCH)]
        rows = len(image) - missing
        return {name: torch.cat([part[name] for part in taken])[:rows] for name in taken[0]}

    return filled


class _Layers(nn.Module):
    """A backbone's network as a function of tensors alone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network = backbone.network
        self._backbone = [backbone]  # in a list, so that it is no sub-module

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        encoded = self._backbone[0].encode(image)
        return tuple(encoded[name] for name in self._backbone[0].layers)


def _openvino(backbone: Backbone, precision: SettledPrecision, threads: int) -> Encode:
    import openvino  # an extra, and slow to import

    stem = stem_of(backbone.network) if precision == "bf16-mixed" else None
    if stem is not None and not _is_linear(stem):
        stem = None
    size = (MICRO_BATCH, 3 if stem is None else 9, backbone.input_size, backbone.input_size)
    try:
        with torch.no_grad(), _splitting(stem), _root_logger_kept():
            exported = torch.export.export(_Layers(backbone).eval(), (torch.zeros(size),))
            model = openvino.convert_model(exported)
    except Exception as err:  # exporters raise nearly any class
        reason = one_line(str(err).strip().rpartition("\n")[2] or type(err).__name__, 200)
        raise BackboneError(
            f"{backbone.architecture}: OpenVINO cannot convert it ({reason}); "
            "choose --engine=eager or --engine=compile"
        ) from err
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,  # a thread each: no result depends on how many there are
        },
    )
    own = threading.local()

    def encode(image: Tensor) -> dict[str, Tensor]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        pixels = image if stem is None else _thrice(image)
        own.request.infer({0: pixels.numpy()}, share_inputs=True)
        # copied: the request gives the same memory again at its next call
        return {
            name: torch.from_numpy(np.array(own.request.get_output_tensor(place).data))
            for place, name in enumerate(backbone.layers)
        }

    return encode


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what the converter does to everybody's log, which it forgets where it fails."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def _split(values: Tensor) -> list[Tensor]:
    """Write float32 as a sum of two numbers that bfloat16 holds, but for 16 bits of precision."""
    high = values.to(torch.bfloat16).float()
    return [high, values - high]


def _thrice(image: Tensor) -> Tensor:
    """Give pixels as the convolution of `_splitting` takes them."""
    high, low = _split(image)
    return torch.cat([high, low, high], dim=1)


def _is_linear(stem: nn.Conv2d) -> bool:
    """Say whether a convolution gives the same with its pixels and weights split.

    One that standardises its weights, as those of NFNet and BiT do, does not.
    """
    side = 2 * max(stem.kernel_size)
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = stem(image)
        try:
            with _splitting(stem):
                found = stem(_thrice(image))
        except RuntimeError:  # groups
            return False
    return bool((found - expected).abs().max() <= 1e-3 * expected.abs().max())


@contextmanager
def _splitting(stem: nn.Conv2d | None) -> Iterator[None]:
    """Let the convolution that sees the pixels take them split.

    For a program that multiplies all in bfloat16: ``x w`` is then, to about float32's precision,
    ``high(x) high(w) + low(x) high(w) + high(x) low(w)``, in one pass over nine channels.
    """
    if stem is None:
        yield
        return
    weight = stem.weight
    high, low = _split(weight)
    stem.weight = nn.Parameter(torch.cat([high, high, low], dim=1), requires_grad=False)
    stem.in_channels = 9
    try:
        yield
    finally:
        stem.weight, stem.in_channels = weight, 3
