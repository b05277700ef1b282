"""Disturb real extractions and compare what they end with, byte for byte, with an undisturbed one.

    python tests/benchmarks/kill.py --kills 50

Runs are killed at random moments (one process, and two and three of them), bytes are flipped, a
disk fills (a small tmpfs, where it may be mounted), a worker and a rank die, two runs go for the
same folder. Each time the same command is run once more. Not a test of the suite: it takes minutes.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from dfl.cli import main as dfl
from dfl.commands import extract as _extract  # noqa: F401  forked runs need not import it

REPOSITORY = Path(__file__).resolve().parents[2]
Bytes = dict[str, bytes]


class Bench:
    """A set of images, a command, and its undisturbed result."""

    def __init__(self, folder: Path, images: int, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.results: Counter[tuple[str, str]] = Counter()
        self.runs = 0
        self._make(images)
        start = time.monotonic()
        assert self.finish(self.folder / "whole") == 0, self.said()
        self.seconds = time.monotonic() - start
        self.whole = content(self.folder / "whole")

    def _make(self, images: int) -> None:
        rng = np.random.default_rng(0)
        for i in range(images):
            file = self.folder / "images" / ("0_real", "1_fake")[i % 2] / f"{i:06d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
        torch.manual_seed(0)
        save_file(timm.create_model("test_vit").state_dict(), self.folder / "vit.safetensors")

    def command(self, out: Path, *more: str) -> list[str]:
        return [
            "extract",
            "--data=dfl.data.ImageDataModule",
            "--data.source=dfl.data.Pairs",
            f"--data.source.root={self.folder / 'images'}",
            "--data.source.pairs={a: {real: 0_real, fake: 1_fake}}",
            "--data.crop=dfl.data.Resize",
            "--data.crop.size=64",
            "--data.batch_size=32",
            f"--data.splits.folder={self.folder / 'splits'}",
            "--backbones.vit=dfl.backbones.TimmBackbone",
            "--backbones.vit.model=test_vit",
            "--backbones.vit.layers=[pooled, block2.mean, block4.mean]",
            f"--backbones.vit.weights={self.folder / 'vit.safetensors'}",
            "--backbones.vit.input_size=64",
            "--accelerator=cpu",
            f"--out={out}",
            *more,
        ]

    def start(self, out: Path, *more: str) -> int:
        """Run the command in a fork, which has imported everything; give its number."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setsid()
            log = os.open(self.folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            dfl(self.command(out, "--devices=1", *more))
            code = 0
        except SystemExit as err:
            code = int(err.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)

    def finish(self, out: Path, *more: str) -> int:
        self.runs += 1
        return os.waitstatus_to_exitcode(os.waitpid(self.start(out, *more), 0)[1])

    def spawn(self, out: Path, *more: str) -> "subprocess.Popen[bytes]":
        """Run the command as a user does, as a session of its own."""
        self.runs += 1
        with (self.folder / "said.txt").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, str(REPOSITORY / "train.py"), *self.command(out, *more)],
                stdout=said,
                stderr=said,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def judge(self, case: str, out: Path, *more: str) -> None:
        """Run the command once more, and compare."""
        if self.finish(out, *more) != 0:
            verdict = f"FAILED: {self.said()[-300:]}"
        elif content(out) != self.whole:
            verdict = "DIFFERENT"
        elif left := [p.name for p in out.parent.iterdir() if p.name.startswith(f".{out.name}.")]:
            verdict = f"identical, but left {left}"
        else:
            verdict = "identical"
        self.results[case, verdict] += 1


def content(folder: Path) -> Bytes:
    """Read a feature folder; the command's own settings are not the features'."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if "config." not in p.name}


def kill_one_process(bench: Bench, count: int) -> None:
    for number in range(count):
        out = bench.folder / f"killed-{number}"
        workers = f"--data.num_workers={number % 2}"
        pid = bench.start(out, workers)
        time.sleep(bench.random.uniform(0, 1.2 * bench.seconds))
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        bench.judge("SIGKILL, 1 process", out, workers)


def kill_while_replacing(bench: Bench, count: int) -> None:
    for number in range(count):
        out = bench.folder / f"replaced-{number}"
        bench.finish(out, "--data.crop.size=48", "--data.batch_size=512")
        pid = bench.start(out, "--overwrite")
        plan = None
        while plan is None or any(plan.glob("*")):  # the end of the run, where folders are replaced
            found = [p for p in out.parent.glob(f".{out.name}.????????????") if p.is_dir()]
            plan = found[0] if found else plan
            done = plan is not None and len(list(plan.glob("shard-*"))) >= len_shards(bench)
            if done or os.waitpid(pid, os.WNOHANG) != (0, 0):
                break
            time.sleep(0.001)
        time.sleep(bench.random.uniform(0, 0.15))
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        bench.judge("SIGKILL while replacing a folder", out, "--overwrite")


def len_shards(bench: Bench) -> int:
    images = sum(1 for _ in (bench.folder / "images").rglob("*.jpg"))
    return -(-images // 128)


def kill_several(bench: Bench, count: int) -> None:
    for number in range(count):
        out = bench.folder / f"ranks-{number}"
        processes = 2 + number % 2
        many = (f"--devices={processes}", "--strategy=ddp")
        run = bench.spawn(out, *many)
        limit = time.monotonic() + 120  # they take seconds to import; the moment is after that
        while run.poll() is None and time.monotonic() < limit:
            if any(out.parent.glob(f".{out.name}.*/shard-*")):
                break
            time.sleep(0.01)
        time.sleep(bench.random.uniform(0, 1.5))
        if number % 3 == 2:
            run.kill()  # the first rank alone; the others find out by themselves
        elif run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        bench.judge(f"SIGKILL, {processes} processes", out)
        if run.poll() is not None:
            try_killpg(run.pid)


def try_killpg(group: int) -> None:
    """End what is left of a session that this script began."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= 1 << place % 8
    file.write_bytes(data)


def flipped_bytes(bench: Bench, count: int) -> None:
    for number in range(count):
        out = bench.folder / f"flipped-{number}"
        pid = bench.start(out)
        while len(shards := sorted(out.parent.glob(f".{out.name}.*/shard-*"))) < 3:
            time.sleep(0.002)
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        file = bench.random.choice(shards)
        flip(file, bench.random.randrange(file.stat().st_size))
        bench.judge("flipped bit in a shard", out)
        file = bench.random.choice([*out.glob("*.npy"), out / "manifest.csv"])
        flip(file, bench.random.randrange(file.stat().st_size))
        bench.judge("flipped bit in a finished file", out)


def full_disk(bench: Bench) -> None:
    size = sum(len(data) for data in bench.whole.values())
    for fraction in (0.3, 0.8, 1.3, 1.9):  # among the shards, and in the join
        mount = bench.folder / f"disk-{fraction}"
        mount.mkdir()
        options = f"size={int(fraction * size)}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)], capture_output=True
        )
        if done.returncode:
            bench.results["full disk", "not run: mounting a tmpfs is not allowed"] += 1
            return
        try:
            code = bench.finish(mount / "f")
            lines = [line for line in bench.said().splitlines() if "full" in line]
            if code != 2 or len(lines) != 1:
                bench.results["full disk", f"code {code}: {bench.said()[-400:]}"] += 1
            if (mount / "f").exists():
                bench.results["full disk", "half a folder"] += 1
            room = ["mount", "-o", f"remount,size={4 * size}", str(mount)]
            subprocess.run(room, check=True, capture_output=True)
            bench.judge(f"full disk, {fraction} of the size", mount / "f")
        finally:
            subprocess.run(["umount", str(mount)], check=True)


def two_at_once(bench: Bench, count: int) -> None:
    for number in range(count):
        out = bench.folder / f"both-{number}"
        pids = [bench.start(out), bench.start(out)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        if codes != [0, 0]:
            bench.results["two at once", f"codes {codes}: {bench.said()[-300:]}"] += 1
        bench.judge("two at once", out)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def dead_helpers(bench: Bench) -> None:
    out = bench.folder / "worker"
    pid = bench.start(out, "--data.num_workers=2")
    while not (found := children(pid)):
        time.sleep(0.002)
    os.kill(found[0], signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    bench.results["dead worker", f"exit code {code}: {bench.said().strip().splitlines()[-1]}"] += 1
    bench.judge("dead worker", out)
    out = bench.folder / "rank"
    run = bench.spawn(out, "--devices=2", "--strategy=ddp")
    while run.poll() is None and not any(out.parent.glob(f".{out.name}.*/shard-*")):
        time.sleep(0.005)
    rank = [pid for pid in children(run.pid) if b"train.py" in cmdline(pid)]
    if rank and run.poll() is None:
        os.kill(rank[0], signal.SIGKILL)
    code = run.wait(timeout=300)
    try_killpg(run.pid)
    bench.results["dead rank", f"exit code {code}: {bench.said().strip().splitlines()[-1]}"] += 1
    bench.judge("dead rank", out)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="a fifth of them with 2 and 3 ranks")
    parser.add_argument("--images", type=int, default=1501)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.images, given.seed)
        print(f"undisturbed, 1 process: {bench.seconds:.1f} s, {given.images} images", flush=True)
        several = given.kills // 5
        cases: list[Callable[[], None]] = [
            lambda: full_disk(bench),
            lambda: flipped_bytes(bench, 5),
            lambda: two_at_once(bench, 3),
            lambda: dead_helpers(bench),
            lambda: kill_while_replacing(bench, several),
            lambda: kill_one_process(bench, given.kills - 2 * several),
            lambda: kill_several(bench, several),
        ]
        for case in cases:
            try:
                case()
            finally:
                print(f"... {bench.runs} runs, {dict(bench.results)}", file=sys.stderr, flush=True)
        print("\n| disturbed by | after the next run | times |\n|---|---|---|")
        for (name, verdict), times in bench.results.items():
            print(f"| {name} | {verdict} | {times} |")
    whole = all(v == "identical" or "exit code" in v for _, v in bench.results)
    raise SystemExit(0 if whole else 1)


if __name__ == "__main__":
    main()
