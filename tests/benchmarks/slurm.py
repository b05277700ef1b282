"""Run the batch scripts as SLURM would, in a job of two machines of two tasks, and run them again.

    python -m tests.benchmarks.slurm            # all; or some: extract fit study study_dask

Stand-ins for srun and scontrol come first on the PATH: the one starts the tasks here, on the CPU,
with the variables that SLURM sets for each; the other ends all processes of the steps with SIGTERM,
which is what happens to a job that is requeued. Each script is given SIGUSR1 in the middle, as
before its time is over, and run again as it is; what it ends with is compared with an undisturbed
run. Not a test of the suite: it takes minutes.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TASKS, MACHINES = 4, 2
JOB = {
    "SLURM_JOB_NAME": "dfl",
    "SLURM_NTASKS": str(TASKS),
    "SLURM_NTASKS_PER_NODE": str(TASKS // MACHINES),
    "SLURM_NNODES": str(MACHINES),
    "SLURM_NODELIST": "localhost",
    "SLURM_CPUS_PER_TASK": "2",
    "SLURM_CPUS_ON_NODE": "2",
    "OMP_NUM_THREADS": "1",
    "JSONARGPARSE_DEPRECATION_WARNINGS": "off",
}
SLOW_S = 0.02
"""What reading an image takes longer, so that there is a middle."""
LIMIT_S = 300


# What comes first on the PATH


def srun(args: list[str]) -> int:
    """Start a command for each task of a step; one that fails ends the others."""
    options = {}
    while args[0].startswith("--"):
        name, _, value = args.pop(0).partition("=")
        options[name] = value
    tasks = int(options.get("--ntasks", os.environ["SLURM_NTASKS"]))
    if args[0] == "dfl":  # once for all of them
        import dfl.app.lightning_cli
        import dfl.commands.extract
        import dfl.commands.study  # noqa: F401
    pids = {_task(args, rank, tasks): rank for rank in range(tasks)}
    with Path(os.environ["STEPS"]).open("a") as steps:
        steps.writelines(f"{pid}\n" for pid in pids)
    signal.signal(signal.SIGTERM, lambda *_: [_signal(pid, signal.SIGTERM) for pid in pids])
    worst = 0
    while pids:
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        pids.pop(pid, None)
        worst = worst or code
        if code and "--kill-on-bad-exit" in options:
            for other in pids:
                _signal(other, signal.SIGTERM)
    return abs(worst)


def _task(command: list[str], rank: int, tasks: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    a_machine = max(1, tasks // MACHINES)
    os.environ |= {
        "SLURM_NTASKS": str(tasks),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % a_machine),
        "SLURM_NODEID": str(rank // a_machine),
    }
    if command[0] != "dfl":
        os.execvp(command[0], command)  # it is a stand-in for what does so
    return _be_dfl(command[1:], rank)


def _be_dfl(args: list[str], rank: int) -> int:
    import torch
    from lightning_utilities.core.rank_zero import rank_zero_only

    from dfl.cli import main
    from dfl.data.images import dataset, views

    rank_zero_only.rank = rank  # as it is where it is imported in the task
    torch.set_num_threads(1)
    for module in (views, dataset):
        read = module.read_image
        module.read_image = lambda *given, read=read, **more: (
            time.sleep(SLOW_S),
            read(*given, **more),
        )[1]
    code = 1
    try:
        main(args)
        code = 0
    except SystemExit as err:
        code = int(err.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(BaseException):
            _leave()
        os._exit(code)


def _leave() -> None:
    """Do what an interpreter does at its end, though not of the process that was forked."""
    import atexit

    atexit._run_exitfuncs()


def scontrol(args: list[str]) -> int:
    """Requeue: end the processes of all steps, those that they started included."""
    assert args == ["requeue", os.environ["SLURM_JOB_ID"]], args
    Path(os.environ["STEPS"]).with_name("requeued").touch()
    tasks = [int(line) for line in Path(os.environ["STEPS"]).read_text().split()]
    for pid in [each for task in tasks for each in (task, *_descendants(task))]:
        _signal(pid, signal.SIGTERM)
    return 0


def _descendants(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                child = int(status.parent.name)
                found += [child, *_descendants(child)]
    return found


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# The jobs


class Cluster:
    """A folder with images, networks and stand-ins, in which scripts are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._make()
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        python = f"exec {sys.executable} -W ignore -m"
        here = "--host=127.0.0.1"  # of Dask's processes
        for name, does in {
            "srun": "tests.benchmarks.slurm --be srun",
            "scontrol": "tests.benchmarks.slurm --be scontrol",
            "dfl": "dfl",
            "dask": "dask",
        }.items():
            more = here if name == "dask" else ""
            (bin_folder / name).write_text(f'#!/bin/bash\n{python} {does} "$@" {more}\n')
            (bin_folder / name).chmod(0o755)
        self.environment = (
            os.environ
            | JOB
            | {
                "PATH": f"{bin_folder}:{os.environ['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
                "STEPS": str(folder / "steps"),
            }
        )

    def _make(self) -> None:
        import numpy as np
        import timm
        import torch
        from PIL import Image
        from safetensors.torch import save_file

        rng = np.random.default_rng(0)
        for pair in ("alpha", "beta"):
            for i in range(96):
                file = self.folder / "images" / pair / ("0_real", "1_fake")[i % 2] / f"{i:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels // (1 + i % 2)).save(file)
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet").state_dict(), self.folder / "tiny.safetensors")
        shutil.copytree(REPOSITORY / "configs", self.folder / "configs")
        (self.folder / "extract.yaml").write_text(f"backbones: {self.backbone()}\n")
        tuned = (
            "{class_path: dfl.heads.FineTuneTask, init_args: {model: test_resnet, input_size: 32, "
            f"weights: {self.folder}/tiny.safetensors, "
            "optimizer: {class_path: torch.optim.Adam}}}"
        )
        (self.folder / "study.yaml").write_text(
            f"backbones: {self.backbone()}\n"
            "heads: {lda: [{class_path: dfl.heads.estimators.lda}],"
            " knn: [{class_path: dfl.heads.estimators.knn}]}\n"
            "train_on: [each, combined]\nreplicates: 100\njobs: 2\n"
            f"baselines: {{tuned: {tuned}}}\n"
            "finetuning: {max_epochs: 3, train_sets: [alpha, combined]}\n"
        )

    def backbone(self) -> str:
        return (
            "{tiny: {class_path: dfl.backbones.TimmBackbone, init_args: {model: test_resnet, "
            f"weights: {self.folder}/tiny.safetensors, input_size: 32}}}}}}"
        )

    def data(self) -> list[str]:
        return [
            "--data=dfl.data.ImageDataModule",
            "--data.source=dfl.data.Pairs",
            f"--data.source.root={self.folder / 'images'}",
            "--data.source.pairs={alpha: {real: alpha, fake: alpha}, "
            "beta: {real: beta, fake: beta}}",
            "--data.crop=dfl.data.Resize",
            "--data.crop.size=32",
            "--data.batch_size=8",
            "--data.splits.val_fraction=0.25",
        ]

    def submit(
        self, script: str, args: list[str], job: int, *, interrupt: Callable[[], bool] | None = None
    ) -> tuple[int, list[str]]:
        """Run a script to its end; where it is to be interrupted, as soon as something is there.

        Returns:
            Its exit code, and what it said.
        """
        (self.folder / "steps").write_text("")
        log = self.folder / "said.txt"
        command = ["bash", f"configs/slurm/{script}.sbatch", *args]
        with log.open("wb") as said:
            batch = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment | {"SLURM_JOB_ID": str(job)},
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        if interrupt is not None:
            while batch.poll() is None and not interrupt():
                time.sleep(0.005)
            to_script = "--signal=B:" in Path(self.folder, command[1]).read_text()
            pids = [batch.pid] if to_script else self.steps()
            asked = time.monotonic()
            for pid in pids:
                _signal(pid, signal.SIGUSR1)
        try:
            code = batch.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            print(log.read_text(errors="replace")[-5000:], flush=True)
            raise
        finally:
            for pid in (batch.pid, *self.steps()) if batch.poll() is None else ():
                for each in (*_descendants(pid), pid):
                    _signal(each, signal.SIGKILL)
        if interrupt is not None:
            print(f"  ended {time.monotonic() - asked:.1f} s after SIGUSR1", flush=True)
        left = [pid for pid in self.steps() if Path("/proc", str(pid)).exists()]
        assert not left, f"outlived their job: {left}"
        return code, log.read_text(errors="replace").splitlines()

    def steps(self) -> list[int]:
        return [int(line) for line in (self.folder / "steps").read_text().split()]


def judge(name: str, run: str, code: int, said: list[str]) -> None:
    """Say how many lines there were, which came more than once, and which ranks were named."""
    # Dask's own lines begin with the time
    lines = [line.strip() for line in said if line.strip() and not re.match(r"\d{4}-", line)]
    twice = {line: count for line, count in Counter(lines).items() if count > 1}
    ranks = sorted(int(n) for line in lines for n in re.findall(r"GLOBAL_RANK: (\d+)", line))
    print(
        f"{name}, {run}: exit code {code}, {len(lines)} lines, more than once {twice or 'none'}, "
        f"ranks named {ranks or 'none'}",
        flush=True,
    )
    for line in lines:
        print(f"    | {line[:150]}", flush=True)


def again(
    cluster: Cluster, script: str, args: list[str], job: int, there: Callable[[], bool]
) -> None:
    """Interrupt a script, and run it again as SLURM does."""
    judge(script, "interrupted", *cluster.submit(script, args, job, interrupt=there))
    requeued = cluster.folder / "requeued"
    print(f"{script}: {'requeued' if requeued.exists() else 'NOT requeued'}")
    requeued.unlink(missing_ok=True)
    code, said = cluster.submit(script, args, job)
    judge(script, "run again", code, said)
    assert code == 0


def alone(cluster: Cluster, args: list[str]) -> None:
    """Run a command undisturbed, in one process."""
    plain = {k: v for k, v in cluster.environment.items() if not k.startswith("SLURM")}
    command = [sys.executable, "-m", "dfl", *args, "--accelerator=cpu", "--devices=1"]
    subprocess.run(command, cwd=cluster.folder, env=plain, check=True, capture_output=True)


def same(name: str, one: Path, other: Path, pattern: str) -> None:
    files = [file.relative_to(one) for file in one.glob(pattern) if file.name != "config.yaml"]
    equal = all((one / file).read_bytes() == (other / file).read_bytes() for file in files)
    print(
        f"{name}: {len(files)} files are {'the same bytes' if equal else 'DIFFERENT'}", flush=True
    )


def extract(cluster: Cluster) -> None:
    args = ["extract.yaml", "out", *cluster.data(), "--accelerator=cpu"]
    again(cluster, "extract", args, 1001, lambda: any(cluster.folder.glob(".out.*/shard-*")))
    alone(cluster, ["extract", "--config=extract.yaml", "--out=whole", *cluster.data()])
    same("extract", cluster.folder / "whole", cluster.folder / "out", "*.*")


def fit(cluster: Cluster) -> None:
    import torch

    args = [
        "--model=dfl.heads.FineTuneTask",
        "--model.model=test_resnet",
        "--model.input_size=32",
        f"--model.weights={cluster.folder / 'tiny.safetensors'}",
        "--model.optimizer=torch.optim.Adam",
        *cluster.data(),
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        "--trainer.max_epochs=6",
    ]
    runs = cluster.folder / "runs/job-1002/dfl"
    again(cluster, "fit", args, 1002, lambda: any(runs.glob("*/checkpoints/last.ckpt")))
    code, said = cluster.submit("fit", args, 1012)
    judge("fit", "undisturbed", code, said)
    one, other = (
        torch.load(max(cluster.folder.glob(f"runs/job-{job}/dfl/*/checkpoints/last.ckpt")))
        for job in (1002, 1012)
    )
    weights = other["state_dict"]
    furthest = max(
        float((value.double() - weights[name].double()).abs().max())
        for name, value in one["state_dict"].items()
    )
    print(f"fit: epoch {one['epoch']}, weights at most {furthest:.1e} apart", flush=True)


def study(cluster: Cluster) -> None:
    out = cluster.folder / "study"
    args = ["study.yaml", *cluster.data(), "--accelerator=cpu", f"--out={out}"]
    again(cluster, "study", args, 1003, lambda: any(out.glob("baselines/.*/last.ckpt")))
    _compare(cluster, "study", out)


def study_dask(cluster: Cluster) -> None:
    out = cluster.folder / "study_dask"
    args = ["study.yaml", *cluster.data(), "--accelerator=cpu", f"--out={out}"]
    again(cluster, "study_dask", args, 1004, lambda: any(out.glob("cells/????????*/cell.json")))
    _compare(cluster, "study_dask", out)


def _compare(cluster: Cluster, name: str, out: Path) -> None:
    whole = cluster.folder / "whole_study"
    if not whole.exists():
        alone(cluster, ["study", "--config=study.yaml", *cluster.data(), f"--out={whole}"])
    same(name, whole, out, "results.csv")


def main() -> None:
    if sys.argv[1:2] == ["--be"]:
        raise SystemExit({"srun": srun, "scontrol": scontrol}[sys.argv[2]](sys.argv[3:]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", help="extract, fit, study or study_dask")
    given = parser.parse_args()
    known = {each.__name__: each for each in (extract, fit, study, study_dask)}
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        for name in given.scripts or known:
            start = time.monotonic()
            known[name](cluster)
            print(f"{name}: {time.monotonic() - start:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
