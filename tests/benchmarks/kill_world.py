"""Kill worlds of several processes at random moments, and compare what the next run ends with.

    python -m tests.benchmarks.kill_world --processes 4 --kills 10

Extraction, fit, test, a study with a baseline, and detection, each as torchrun runs it: a process
that starts the others, ends them where one fails, and ends itself. What is killed is one of the
processes, the one that started them, or all. Half a minute later none may be left; then the same
command is run again, and gives the bytes that an undisturbed one has given. Not a test of the
suite: it takes an hour.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from dfl.app import lightning_cli  # noqa: F401  forked runs need not import them
from dfl.cli import main as dfl
from dfl.commands import detect, extract, study  # noqa: F401
from tests.runs import free_port, image_data, job_of_torchrun, tiny_resnet, tuned_resnet

KINDS = ("one process", "the parent", "all")
LIMIT_S = 30.0
GRACE_S = 10.0
_PARENT, _SESSION = 1, 3  # after the name of the program in /proc/PID/stat
Bytes = dict[str, bytes]


@dataclass(frozen=True)
class Command:
    """A command of the world, and how its result is read.

    Attributes:
        args: Its command line, by the folder of its results.
        result: What an undisturbed run and the one after a kill have to agree in, by that folder.
    """

    args: Callable[[Path], list[str]]
    result: Callable[[Path], Bytes]


def launch(args: list[str], processes: int, log: Path) -> int:
    """Start a launcher in a session of its own, which starts the processes; give its number."""
    port = free_port()
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    ranks = [_rank(args, rank, processes, port) for rank in range(processes)]
    left, worst = set(ranks), 0
    deadline = float("inf")
    while left:
        for each in list(left):
            done, status = os.waitpid(each, os.WNOHANG)
            if done:
                left.discard(each)
                code = os.waitstatus_to_exitcode(status)
                if code and not worst:
                    worst, deadline = code, time.monotonic() + GRACE_S
                    for other in left:
                        os.kill(other, signal.SIGTERM)
        if time.monotonic() > deadline:
            for other in left:
                os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    os._exit(1 if worst else 0)


def _rank(args: list[str], rank: int, processes: int, port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.environ |= job_of_torchrun(rank, processes, port)
    code = 1
    try:
        dfl(args)
        code = 0
    except SystemExit as err:
        code = int(err.code or 0)
    except BaseException:  # as the interpreter would: it is all that is seen of it
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def processes_of(session: int) -> list[int]:
    """List the processes of a session."""
    return _processes(_SESSION, session)


def children(pid: int) -> list[int]:
    """List the processes that one has started."""
    return _processes(_PARENT, pid)


def _processes(place: int, number: int) -> list[int]:
    """List the processes that have a number at a place of their state; none is a zombie."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[place]) == number and fields[0] != "Z":
                found.append(int(path.parent.name))
    return sorted(found)


def make_images(folder: Path, count: int) -> None:
    """Write two pairs of noise and flat pictures with a grid, and a tiny network."""
    rng = np.random.default_rng(0)
    for pair in ("alpha", "beta"):
        for i in range(count):
            real = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            fake = np.full((48, 64, 3), rng.integers(0, 256, 3), dtype=np.uint8)
            fake[::8] = fake[:, ::8] = 255
            for side, pixels in (("0_real", real), ("1_fake", fake)):
                file = folder / "images" / pair / side / f"{i:04d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), folder / "tiny.safetensors")


def commands(folder: Path, processes: int) -> dict[str, Command]:
    """Give the commands by name; all of them see the same images."""
    weights = folder / "tiny.safetensors"
    splits = f"--data.splits.folder={folder / 'splits'}"
    data = [*image_data(folder / "images"), splits]
    many = ["--accelerator=cpu", f"--devices={processes}", "--strategy=ddp"]
    trainer = [f"--trainer.{arg.removeprefix('--')}" for arg in many]

    def logged(out: Path) -> list[str]:
        return [
            "--trainer.log_every_n_steps=1",
            "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
            f"--trainer.logger.save_dir={out}",
            "--trainer.logger.name=run",
        ]

    model = ["--model=dfl.heads.LinearProbeTask", *tiny_resnet("model.", weights)]
    model += ["--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=0.01"]
    fit = ["fit", *model, *data, *trainer, "--trainer.max_epochs=4"]
    (folder / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "heads": {"lda": [{"class_path": "dfl.heads.estimators.lda"}]},
                "train_on": ["each", "combined"],
                "conditions": {
                    "none": [],
                    "blur": [
                        {"class_path": "dfl.data.GaussianBlur", "init_args": {"sigma": 1.0}},
                    ],
                },
                "baselines": {"tuned": tuned_resnet(weights)},
                "finetuning": {"max_epochs": 2, "train_sets": ["combined"]},
                "replicates": 100,
                "jobs": 1,
            },
            sort_keys=False,  # the first condition is how images come
        )
    )

    def checkpoint(out: Path) -> Path:
        return next(newest(out).rglob("*.ckpt"))

    fitted = folder / "fitted"

    return {
        "extract": Command(
            lambda out: ["extract", *tiny_resnet("", weights), *data, *many, f"--out={out}"],
            lambda out: {p.name: p.read_bytes() for p in out.iterdir() if "config." not in p.name},
        ),
        "fit": Command(
            lambda out: [*fit, *logged(out)],
            lambda out: tensors(checkpoint(out)) | files(newest(out), "metrics.csv"),
        ),
        "test": Command(
            lambda out: [
                "test",
                *model,
                *data,
                *trainer,
                *logged(out),
                f"--ckpt_path={checkpoint(fitted)}",
            ],
            lambda out: files(newest(out), "scores.csv", "metrics.csv"),
        ),
        "study": Command(
            lambda out: [
                "study",
                f"--config={folder / 'study.yaml'}",
                *tiny_resnet("", weights),
                *data,
                *many,
                f"--out={out}",
            ],
            lambda out: files(out, "results.csv"),
        ),
        "detect": Command(
            lambda out: [
                "detect",
                f"--detector={checkpoint(fitted)}",
                f"--images={folder / 'images'}",
                "--batch_size=8",
                "--accelerator=cpu",
                f"--devices={processes}",
                "--overwrite",
                f"--out={out / 'scores.csv'}",
            ],
            lambda out: files(out, "scores.csv"),
        ),
    }


def newest(out: Path) -> Path:
    """Give the last version that a logger has made."""
    return max((out / "run").iterdir(), key=lambda path: int(path.name.rpartition("_")[2]))


def files(folder: Path, *names: str) -> Bytes:
    """Read files by name."""
    return {name: (folder / name).read_bytes() for name in names}


def tensors(checkpoint: Path) -> Bytes:
    """Read what was trained; the file also holds when and where."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name: value.numpy().tobytes() for name, value in state.items()}


def run(args: list[str], processes: int, log: Path) -> int:
    """Run a command undisturbed."""
    return os.waitstatus_to_exitcode(os.waitpid(launch(args, processes, log), 0)[1])


def disturb(
    args: list[str], processes: int, log: Path, kind: str, moment: float, draw: random.Random
) -> str:
    """Kill a run at a moment; say what is left of it, nothing if it was over by then."""
    pid = launch(args, processes, log)
    start, over = time.monotonic(), (0, 0)
    while time.monotonic() - start < moment and over == (0, 0):
        time.sleep(0.005)
        over = os.waitpid(pid, os.WNOHANG)
    if over == (0, 0):
        target = draw.choice(children(pid) or [pid]) if kind == "one process" else pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL) if kind == "all" else os.kill(target, signal.SIGKILL)
    killed = time.monotonic()
    while time.monotonic() - killed < LIMIT_S:
        if over == (0, 0):
            over = os.waitpid(pid, os.WNOHANG)
        if over != (0, 0) and not processes_of(pid):
            return ""
        time.sleep(0.02)
    left = processes_of(pid)
    for each in left:
        os.kill(each, signal.SIGKILL)
    if over == (0, 0):
        os.waitpid(pid, 0)
    return f"{len(left)} processes left after {LIMIT_S:.0f} s; "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10, help="of each command, for each kind")
    parser.add_argument("--images", type=int, default=24, help="of each class in each of two pairs")
    parser.add_argument("--only", nargs="*", help="names of commands")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(given.seed)
    results: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name), Path(name) / "said.txt"
        os.chdir(folder)
        make_images(folder, given.images)
        world = commands(folder, given.processes)
        assert run(world["fit"].args(folder / "fitted"), given.processes, log) == 0, log.read_text()
        for command in given.only or world:
            args, read = world[command].args, world[command].result
            start = time.monotonic()
            assert run(args(folder / command), given.processes, log) == 0, log.read_text()
            seconds = time.monotonic() - start
            whole = read(folder / command)
            print(f"{command}: {seconds:.1f} s undisturbed", flush=True)
            for number in range(given.kills):
                for kind in KINDS:
                    out = folder / f"{command}-{number}-{kind.replace(' ', '-')}"
                    moment = draw.uniform(0, 1.1 * seconds)
                    left = disturb(args(out), given.processes, log, kind, moment, draw)
                    said = log.read_text()
                    if run(args(out), given.processes, log):
                        verdict = f"FAILED: {log.read_text()[-500:]}"
                    else:
                        verdict = "identical" if read(out) == whole else "DIFFERENT"
                    results[command, kind, left + verdict] += 1
                    if left or verdict != "identical":
                        print(
                            f"{command}, {kind} at {moment:.2f} s: {left}{verdict}\n{said[-1500:]}"
                        )
        print("\n| command | killed | after the next run | times |\n|---|---|---|---|")
        for (command, kind, verdict), times in results.items():
            print(f"| {command} | {kind} | {verdict} | {times} |")
    raise SystemExit(any(verdict != "identical" for _, _, verdict in results))


if __name__ == "__main__":
    main()
