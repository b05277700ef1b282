"""Time and memory of heads on synthetic features: is the one linear and the other flat in the rows?

Writes feature folders of 768 columns with a planted signal, then runs each command in a process of
its own and prints a table. Peak memory is that of the process, libraries included, and seconds are
those of the whole command with the start of Python; on a busy machine the CPU's seconds say more.

    python -m tests.benchmarks.scale_heads --rows 100000 1000000
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

DIM = 768
SIGNAL = 64  # directions in which the classes vary most, as features of a network do
STRENGTH = 0.12  # of the planted difference, in each of these directions
BLOCK = 20_000
HEADS = ("lda", "logistic_regression", "linear_svm", "rbf_svm", "naive_bayes")


def main() -> None:
    """Run the cases, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--folder", type=Path, help="where features are kept; default: removed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", choices=["write", *CASES], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        _run_here(given.run, given.folder, given.rows[0], given.seed)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        print("| case | rows | seconds | of the CPU | rows/s | peak MiB | AUROC |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for rows in given.rows:
            if not (folder / str(rows) / "features" / "features.json").exists():
                _measure("write", folder, rows, given)
            for case in given.cases:
                found = _measure(case, folder, rows, given)
                print(
                    f"| {case} | {rows:,} | {found['seconds']:.1f} | {found['cpu']:.1f} | "
                    f"{rows / found['seconds']:,.0f} | {found['peak'] / 1024:,.0f} | "
                    f"{found['auroc']:.4f} |",
                    flush=True,
                )


def _measure(case: str, folder: Path, rows: int, given: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.scale_heads", "--run", case]
    command += ["--folder", str(folder), "--rows", str(rows), "--seed", str(given.seed)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(given.threads))
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        sys.exit(f"{case}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"seconds": time.perf_counter() - start}  # with the start of Python


def _run_here(case: str, folder: Path, rows: int, seed: int) -> None:
    work = folder / str(rows)
    if case == "write":
        _write(work / "features", rows, seed)
        auroc = float("nan")
    else:
        with tempfile.TemporaryDirectory(dir=work) as out:
            auroc = CASES[case](work / "features", Path(out))
    used = resource.getrusage(resource.RUSAGE_SELF)  # ru_maxrss is in KiB on Linux
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps({"peak": used.ru_maxrss, "cpu": cpu, "auroc": auroc}))


def _write(out: Path, rows: int, seed: int) -> None:
    import numpy as np
    import pandas as pd

    from dfl.data.manifest.manifest import Manifest
    from dfl.features.store import new_store
    from dfl.types import FeatureLayer

    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, rows)
    names = [f"images/{i // 1000:04d}/{i:07d}.png" for i in range(rows)]
    split = np.array(["train"] * 8 + ["val", "test"])[rng.integers(0, 10, rows)]
    frame = pd.DataFrame(
        {
            "path": pd.Series(names, dtype="str"),
            "label": label,
            "dataset": "made",
            "generator": np.where(label == 1, "planted", "real"),
            "split": split,
            "group": pd.Series(names, dtype="str"),
        }
    )
    mix = rng.standard_normal((SIGNAL, DIM), dtype=np.float32)
    scale = np.exp(rng.standard_normal(DIM, dtype=np.float32))
    mean = rng.standard_normal(DIM, dtype=np.float32) * 3
    spec = (FeatureLayer("made.pooled", DIM, "0" * 64),)
    with new_store(out, Manifest(frame, out), spec=spec, metadata={}) as matrices:
        for start in range(0, rows, BLOCK):
            own = label[start : start + BLOCK, None].astype(np.float32)
            hidden = rng.standard_normal((len(own), SIGNAL), dtype=np.float32) + STRENGTH * own
            noise = rng.standard_normal((len(own), DIM), dtype=np.float32)
            block = (hidden @ mix + 2 * noise) * scale + mean
            matrices["made.pooled"][start : start + len(own)] = block


def _head(name: str, reduction: str | None = None) -> Callable[[Path, Path], float]:
    def run(features: Path, out: Path) -> float:
        from dfl.commands.heads import heads
        from dfl.heads import estimators
        from dfl.heads.estimators.reductions import pca

        table = heads(
            features,
            out,
            heads={name: getattr(estimators, name)()},
            reduction=pca(64) if reduction else None,
        )
        return float(table.query("split == 'test' and scope == 'pooled'")["auroc"].iloc[0])

    return run


def _probe(features: Path, out: Path) -> float:
    """Train for one pass over the rows, with a validation, then test."""
    import lightning.pytorch as pl
    import torch

    from dfl.features import FeatureDataModule
    from dfl.heads import LinearProbeTask

    task = LinearProbeTask(optimizer=lambda weights: torch.optim.AdamW(weights, lr=1e-3))
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=out,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = FeatureDataModule(features, batch_size=256)
    trainer.fit(task, datamodule=data)
    return float(trainer.test(task, datamodule=data, verbose=False)[0]["test/auroc"])


CASES: dict[str, Callable[[Path, Path], float]] = {
    "linear probe (fit)": _probe,
    **{name: _head(name) for name in HEADS},
    "pca + logistic_regression": _head("logistic_regression", "pca"),
}

if __name__ == "__main__":
    main()
