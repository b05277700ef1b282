"""Frozen backbones at the speed of the hardware, with the same results on any number of threads.

On a CPU each pass runs on one thread, and as many passes at once as there are threads: that is
faster than all threads sharing one pass, which wait for each other after every operation, and the
features are the same bits whatever the number of threads and processes. On an accelerator a whole
batch goes at once, and its result is fetched when it is asked for.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self, cast

import torch
from torch import Tensor

from dfl.backbones.base import Backbone
from dfl.backbones.engines import MICRO_BATCH, Engine, check_engine, engine_for
from dfl.backbones.fused import FusedBackbone
from dfl.backbones.precision import Precision, autocast, settle_precision
from dfl.errors import BackboneError, one_line
from dfl.processes import own_threads
from dfl.recipe import Recipe

Features = dict[str, Tensor]

_COMPILER: Final = ("torch._dynamo", "torch._inductor")


class FeaturesUnderWay:
    """Features that are being made.

    Args:
        chunks: The results of consecutive images, or what will give them.
        ready: What to wait for before results that are there may be read.
    """

    def __init__(
        self, chunks: Sequence["Future[Features] | Features"], ready: torch.cuda.Event | None = None
    ) -> None:
        self._chunks = chunks
        self._ready = ready

    def result(self) -> Features:
        """Wait for the features.

        Returns:
            By layer name ``<backbone>.<layer>``: ``(B, D)``, float32, on the CPU.

        Raises:
            Exception: What the forward pass raised.
        """
        if self._ready is not None:
            self._ready.synchronize()
        chunks = [chunk.result() if isinstance(chunk, Future) else chunk for chunk in self._chunks]
        return {name: torch.cat([chunk[name] for chunk in chunks]).cpu() for name in chunks[0]}


class Runner:
    """Run frozen backbones over batches; several may be under way.

    Used as a context: entering it takes threads, and compiles where that was asked for. The
    backbones are cast in place, so they are the runner's from then on.

    Args:
        backbone: The fused backbones.
        device: Kind of device that they will be on when the context is entered: ``cpu``, ``cuda``.
        precision: Numeric precision, as `settle_precision` takes it.
        engine: What carries out the passes: torch as it is, ``torch.compile``, or OpenVINO.

    Attributes:
        spec: The layers, fingerprinted before the cast.
        description: What decides the last bits of the features besides images and weights.
        precision: The precision settled on.

    Raises:
        BackboneError: If the engine cannot be had, or a backbone was cast to another precision.
    """

    def __init__(
        self,
        backbone: FusedBackbone,
        *,
        device: str = "cpu",
        precision: Precision | None = None,
        engine: Engine = "eager",
    ) -> None:
        self.backbone = backbone
        self.device = device
        self.spec = backbone.spec
        self.precision = settle_precision(precision, device)
        self.engine = engine
        check_engine(engine, device, self.precision)
        self.description: Recipe = {"precision": self.precision, "engine": engine}
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 1
        # openvino casts itself
        backbone.cast_networks("32-true" if engine == "openvino" else self.precision)

    def __enter__(self) -> Self:
        """Take the threads, and compile.

        Raises:
            BackboneError: If the engine cannot take one of the networks.
        """
        on_cpu = self.device == "cpu"
        self._threads = torch.get_num_threads()
        passes = own_threads(self._threads)
        if on_cpu:
            torch.set_num_threads(1)  # for new threads too
            self._pool = ThreadPoolExecutor(passes, thread_name_prefix="backbone")
        try:
            for member in self._members().values():
                threads = passes if on_cpu else None
                member.run_with(engine_for(member, self.engine, self.precision, threads=threads))
            if self.engine == "compile" and on_cpu:
                self._warm_up()  # elsewhere the first batch does, whose size is not known here
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the threads back; what is under way is dropped."""
        self._close()

    def submit(
        self, name: str, image: Tensor, *, batch_size: int | None = None
    ) -> FeaturesUnderWay:
        """Start the pass of one backbone over a batch.

        Args:
            name: The backbone's name.
            image: uint8, ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``, on the runner's device.
            batch_size: How many images a batch has that is not the last one, if that is known: what
                is compiled for an accelerator then sees no other size, for which it would be
                compiled again, to other bits.

        Returns:
            The features to be; on a CPU this returns at once.
        """
        if self._pool is None:
            if self.engine != "compile" or batch_size is None:
                return _fetched(self._forward(name, image))
            features = self._forward(name, _filled_up(image, batch_size))
            return _fetched({layer: value[: len(image)] for layer, value in features.items()})
        pool, chunks = self._pool, torch.split(image, MICRO_BATCH)
        return FeaturesUnderWay([pool.submit(self._forward, name, x) for x in chunks])

    def _forward(self, name: str, image: Tensor) -> Features:
        # both contexts are of the thread that enters them
        with torch.inference_mode(), autocast(self.precision, self.device):
            try:
                layers = self._members()[name](image)
            except Exception as err:  # the compiler's: it works when the first batch comes
                if not type(err).__module__.startswith(_COMPILER):
                    raise
                raise _not_compiled(name, err) from err
        return {f"{name}.{layer}": value for layer, value in layers.items()}

    def _warm_up(self) -> None:
        """Compile before the clock runs, and in one thread, which the compiler wants."""
        for name, member in self._members().items():
            size = (MICRO_BATCH, 3, member.input_size, member.input_size)
            device = next(member.buffers()).device  # those of the normalisation
            try:
                self._forward(name, torch.zeros(size, dtype=torch.uint8, device=device))
            except BackboneError:
                raise
            except Exception as err:  # compilers raise nearly any class
                raise _not_compiled(name, err) from err

    def _members(self) -> dict[str, Backbone]:
        return cast(dict[str, Backbone], dict(self.backbone.backbones.items()))

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
            torch.set_num_threads(self._threads)
        for member in self._members().values():
            member.run_with(None)


def _not_compiled(name: str, err: Exception) -> BackboneError:
    reason = one_line(err, 200)
    return BackboneError(f"{name}: torch.compile fails ({reason}); choose --engine=eager")


def _filled_up(image: Tensor, size: int) -> Tensor:
    """Fill a batch up with black images, where it has fewer than that."""
    missing = max(0, size - len(image))
    if not missing:
        return image
    return torch.cat([image, image.new_zeros(missing, *image.shape[1:])])


def _fetched(features: Features) -> FeaturesUnderWay:
    """Copy features from a GPU while the next batch is under way.

    A plain copy would be asked for behind the batches that were started meanwhile, and wait for
    them as well.
    """
    device = next(iter(features.values())).device
    if device.type != "cuda":
        return FeaturesUnderWay([features])
    copies = {
        name: torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
        for name, value in features.items()
    }
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    ready.record(torch.cuda.current_stream(device))
    return FeaturesUnderWay([copies], ready)
