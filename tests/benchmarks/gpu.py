"""What a GPU does with dfl: agreement with the CPU, images per second, and what is waited for.

    python -m tests.benchmarks.gpu --images 4096
    python -m tests.benchmarks.gpu --device cpu --images 64 --model test_vit   # to try the script

Every step is a process of its own with a limit, and prints one line of JSON; one that fails or is
late says so in its line, and the others go on. Networks have random weights, seeded.
"""

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from dfl.backbones import FusedBackbone, TimmBackbone
from dfl.backbones.runner import Runner
from dfl.cli import main as dfl
from tests.runs import FEATURE_DATA, write_features

COMPARED = 128
SIZE = 224


def versions(setup: argparse.Namespace) -> dict[str, Any]:
    """Say what this is measured on."""
    found: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    found["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    if setup.device == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
            "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return found


def agreement(setup: argparse.Namespace) -> dict[str, Any]:
    """Hold the features of each precision against float32 on the CPU: lowest and mean cosine."""
    batch = torch.from_numpy(np.stack([_picture(i) for i in range(COMPARED)])).permute(0, 3, 1, 2)
    exact = _features(setup, "cpu", "32-true", batch)
    found: dict[str, Any] = {}
    for precision in ("32-true", "bf16-mixed", "16-mixed", "bf16-true"):
        if setup.device == "cpu" and precision == "16-mixed":
            continue
        for tf32 in (False, True) if setup.device == "cuda" and precision == "32-true" else (None,):
            with contextlib.ExitStack() as changed:
                if tf32 is not None:
                    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
                if tf32:  # which a frozen network does not use by itself
                    context = mock.patch("dfl.backbones.base.exact_float32", _as_it_is)
                    changed.enter_context(context)
                made = _features(setup, setup.device, precision, batch)
            name = precision + {None: "", True: " with TF32", False: " without TF32"}[tf32]
            cosine = torch.cosine_similarity(made.double(), exact.double())
            found[name] = {"lowest": cosine.min().item(), "mean": cosine.mean().item()}
    return found


def tail(setup: argparse.Namespace) -> dict[str, Any]:
    """Say whether an image's features depend on the size of its batch: bits that are equal."""
    batch = torch.from_numpy(np.stack([_picture(i) for i in range(32)])).permute(0, 3, 1, 2)
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        whole = _features(setup, setup.device, precision, batch)
        part = _features(setup, setup.device, precision, batch[:7])
        found[precision] = (whole[:7] == part).float().mean().item()
    return found


def rates(setup: argparse.Namespace) -> dict[str, Any]:
    """Measure images per second: data path, backbone alone, extract, plain loop."""
    said = {}
    engines = ("eager", "compile") if setup.device == "cuda" else ("eager",)
    for engine in engines:
        for precision in ("auto", "32-true"):
            args = ["bench", *_data(setup), *_backbone(setup), f"--engine={engine}"]
            args += [f"--precision={precision}", f"--images={setup.images}", "--repeats=2"]
            said[f"{engine}, {precision}"] = _said([*args, f"--accelerator={setup.device}"])
    return said


def bare(setup: argparse.Namespace) -> dict[str, Any]:
    """Time the bare network, compiled, in bfloat16, on a batch that is there: the ceiling."""
    model = timm.create_model(setup.model, num_classes=0).eval().to(setup.device)
    batch = torch.rand(setup.batch, 3, *model.default_cfg["input_size"][1:], device=setup.device)
    found = {}
    networks = {"eager": model}
    if setup.device == "cuda":  # a CPU takes minutes to compile
        networks["compiled"] = torch.compile(model)
    for name, network in networks.items():
        with torch.inference_mode(), torch.autocast(setup.device, torch.bfloat16):
            for _ in range(3):
                network(batch)
            _settle(setup)
            start, runs = time.perf_counter(), max(2, 2048 // setup.batch)
            for _ in range(runs):
                network(batch)
            _settle(setup)
        found[name] = runs * setup.batch / (time.perf_counter() - start)
    return found


def waits(setup: argparse.Namespace) -> dict[str, Any]:
    """Count what the host waits for in fit and test on features and in extract, by line.

    On a GPU these are the synchronisations that torch warns of, on a CPU the numbers that are read
    out of tensors, which would be some.
    """
    write_features(Path("features"), rows=4000)
    model = ["--model=LinearProbeTask", "--model.optimizer=torch.optim.AdamW"]
    model += ["--model.optimizer.lr=0.01", *FEATURE_DATA, "--data.features=features"]
    trainer = [f"--trainer.accelerator={setup.device}", "--trainer.devices=1"]
    trainer += ["--trainer.max_epochs=2", "--trainer.log_every_n_steps=1000"]
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=runs"]
    steps = {
        "fit": ["fit", *model, *trainer, *logger],
        "extract": ["extract", *_data(setup), *_backbone(setup), "--out=out"],
    }
    steps["extract"] += [f"--accelerator={setup.device}"]
    found: dict[str, Any] = {}
    for name, args in steps.items():
        with _counting(setup.device) as counts:
            _said(args)
        found[name] = dict(counts.most_common(8)) | {"all": counts.total()}
    return found


def resumed(setup: argparse.Namespace) -> dict[str, Any]:
    """Score a checkpoint of this device on the CPU as well: the largest difference of scores."""
    common = [*_data(setup), *[f"--model.{arg[2:]}" for arg in _backbone(setup)]]
    common += ["--model=LinearProbeTask", "--model.optimizer=torch.optim.AdamW"]
    common = [*common[-2:], *common[:-2], "--model.optimizer.lr=0.01"]
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=runs"]
    device = [f"--trainer.accelerator={setup.device}", "--trainer.devices=1"]
    _said(["fit", *common, *device, *logger, "--trainer.max_epochs=1"])
    (checkpoint,) = Path("runs").rglob("*.ckpt")
    tables = []
    for where in (setup.device, "cpu"):
        args = ["detect", f"--detector={checkpoint}", f"--images={setup.folder / 'images'}"]
        _said([*args, f"--accelerator={where}", f"--out={where}.csv", "--overwrite"])
        tables.append(np.genfromtxt(f"{where}.csv", delimiter=",", skip_header=1, usecols=1))
    return {"largest": float(np.abs(tables[0] - tables[1]).max()), "spread": float(np.std(tables))}


STEPS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], float]] = {
    "versions": (versions, 60),
    "agreement": (agreement, 120),
    "tail": (tail, 60),
    "bare": (bare, 120),
    "waits": (waits, 120),
    "rates": (rates, 300),
    "resumed": (resumed, 120),
}


def _picture(number: int) -> np.ndarray:
    """Draw something with edges and gradients, the same each time."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _write(folder: Path, count: int, model: str) -> None:
    for number in range(count):
        file = folder / "images" / ("0_real", "1_fake")[number % 2] / f"{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_picture(number)).resize((512, 384)).save(file)
    torch.manual_seed(0)
    save_file(timm.create_model(model).state_dict(), folder / "weights.safetensors")


def _data(setup: argparse.Namespace) -> list[str]:
    return [
        "--data=dfl.data.ImageDataModule",
        "--data.source=dfl.data.Tree",
        f"--data.source.root={setup.folder / 'images'}",
        "--data.crop=dfl.data.Resize",
        f"--data.crop.size={SIZE}",
        f"--data.batch_size={setup.batch}",
        f"--data.num_workers={setup.workers}",
    ]


def _backbone(setup: argparse.Namespace) -> list[str]:
    name = "--backbones.net"
    return [
        f"{name}=dfl.backbones.TimmBackbone",
        f"{name}.model={setup.model}",
        f"{name}.weights={setup.folder / 'weights.safetensors'}",
        f"{name}.input_size={SIZE}",
    ]


def _features(
    setup: argparse.Namespace, device: str, precision: Any, batch: torch.Tensor
) -> torch.Tensor:
    weights = setup.folder / "weights.safetensors"
    network = TimmBackbone(setup.model, weights=weights, input_size=SIZE)
    runner = Runner(FusedBackbone({"net": network}), device=device, precision=precision)
    runner.backbone.to(device)
    with torch.inference_mode(), runner:
        (features,) = runner.submit("net", batch.to(device)).result().values()
    return features


def _as_it_is(_: object) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _said(args: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        dfl(args)
    return said.getvalue()


def _settle(setup: argparse.Namespace) -> None:
    if setup.device == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def _counting(device: str) -> Iterator[Counter[str]]:
    """Count by line of dfl what the host waits for, or would."""
    counts: Counter[str] = Counter()

    def note() -> None:
        lines = [f for f in traceback.extract_stack() if re.search(r"/dfl/.*\.py$", f.filename)]
        where = lines[-1] if lines else None
        counts[f"{Path(where.filename).name}:{where.lineno}" if where else "elsewhere"] += 1

    class Scalars(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func is torch.ops.aten._local_scalar_dense.default:
                note()
            return func(*args, **(kwargs or {}))

    if device == "cpu":
        with Scalars():
            yield counts
        return
    torch.cuda.set_sync_debug_mode("warn")
    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest, **more: (
            note() if "synchroniz" in str(message) else shown(message, *rest, **more)
        )
        try:
            yield counts
        finally:
            warnings.showwarning = shown
            torch.cuda.set_sync_debug_mode("default")


def main() -> None:
    """Run all steps, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--model", default="vit_base_patch16_clip_224.openai")
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    setup = parser.parse_args()
    if setup.folder is not None:  # one step, in its own process
        (step,) = setup.steps
        print(json.dumps({"step": step} | STEPS[step][0](setup)), file=sys.__stdout__, flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, setup.images, setup.model)
        for step in setup.steps:
            work = folder / step
            work.mkdir()
            command = [sys.executable, "-m", "tests.benchmarks.gpu", *sys.argv[1:]]
            command += ["--steps", step, "--folder", str(folder)]
            start = time.monotonic()
            try:
                done = subprocess.run(
                    command, cwd=work, capture_output=True, text=True, timeout=STEPS[step][1]
                )
                line = done.stdout.strip().rpartition("\n")[2] if done.returncode == 0 else ""
                problem = done.stderr.strip().splitlines()[-3:]
            except subprocess.TimeoutExpired:
                line, problem = "", [f"took longer than {STEPS[step][1]:.0f} s"]
            print(line or json.dumps({"step": step, "error": problem}), flush=True)
            print(f"  {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
