"""Time and peak memory of `dfl extract` by the number of images.

    python tests/benchmarks/scale_extract.py --images 10000 100000

Images are small JPEGs made for the purpose, the backbone is a tiny one, so that what is measured is
all the rest: tables, hashing, loading, shards, joining. Memory is that of all processes of a run
together, their shared pages counted once (PSS of Linux; pages of files as of the process that has
most of them, since their PSS depends on who else on the machine uses the same libraries), sampled
every half second; the seconds of processors tell the work apart from what else the machine does.
"""

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

REPOSITORY = Path(__file__).resolve().parents[2]


def make_images(root: Path, count: int, side: int) -> None:
    """Write random JPEGs, half of them fake, a thousand to a folder."""
    rng = np.random.default_rng(0)
    for i in range(count):
        file = root / ("0_real", "1_fake")[i % 2] / f"{i // 1000:04d}" / f"{i:07d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side)).save(file, quality=80)


def family(pid: int) -> list[int]:
    """List a process and all that it started."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, rest = [], [pid]
    while rest:
        found.append(rest.pop())
        rest += parents.get(found[-1], [])
    return found


def memory(pid: int) -> float:
    """Sum the memory of a process and all that it started, in MiB."""
    own, libraries = 0, 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            own += _kib(rollup, "Pss_Anon:") + _kib(rollup, "Pss_Shmem:")
            libraries = max(libraries, _kib(Path(f"/proc/{one}/status").read_text(), "RssFile:"))
    return (own + libraries) / 1024


def _kib(text: str, name: str) -> int:
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def measure(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Run a command; give its seconds, those of processors, and its peak memory in MiB."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "said.txt").open("wb") as said:
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    peak = [0.0]

    def watch() -> None:
        while run.poll() is None:
            peak[0] = max(peak[0], memory(run.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = run.wait()
    watcher.join()
    if code:
        raise SystemExit((folder / "said.txt").read_text()[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - start, busy, peak[0]


def extraction(folder: Path, images: Path, workers: int, processes: int) -> list[str]:
    """Give the command line."""
    return [
        sys.executable,
        str(REPOSITORY / "train.py"),
        "extract",
        "--data=dfl.data.ImageDataModule",
        "--data.source=dfl.data.Pairs",
        f"--data.source.root={images}",
        "--data.source.pairs={a: {real: 0_real, fake: 1_fake}}",
        "--data.crop=dfl.data.Resize",
        "--data.crop.size=64",
        f"--data.num_workers={workers}",
        "--backbones.vit=dfl.backbones.TimmBackbone",
        "--backbones.vit.model=test_vit",
        f"--backbones.vit.weights={folder / 'vit.safetensors'}",
        "--backbones.vit.input_size=64",
        "--accelerator=cpu",
        f"--devices={processes}",
        f"--strategy={'ddp' if processes > 1 else 'auto'}",
        f"--out={folder / f'features-{images.name}'}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        save_file(timm.create_model("test_vit").state_dict(), folder / "vit.safetensors")
        print("| images | run | seconds | CPU seconds | peak MiB |\n|---|---|---|---|---|")
        for count in given.images:
            make_images(folder / str(count), count, given.side)
            command = extraction(folder, folder / str(count), given.workers, given.processes)
            for run in ("first", "again"):
                seconds, busy, peak = measure(command, folder)
                print(f"| {count} | {run} | {seconds:.1f} | {busy:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
