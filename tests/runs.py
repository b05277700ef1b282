"""Command lines of small runs, shared by the tests of the entry."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.features.store import new_store
from dfl.types import FeatureLayer

FIT = [
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
    "--trainer.logger.save_dir=runs",
]
FEATURE_DATA = ["--data=dfl.features.FeatureDataModule", "--data.batch_size=32"]
TINY_BACKBONE = [
    "--model=dfl.heads.LinearProbeTask",
    "--model.backbones.tiny=dfl.backbones.TimmBackbone",
    "--model.backbones.tiny.model=test_vit",
    "--model.backbones.tiny.pretrained=false",
    "--model.backbones.tiny.input_size=32",
    "--model.optimizer=torch.optim.AdamW",
    "--model.optimizer.lr=0.01",
]


def job_of_slurm(rank: int = 0, tasks: int = 1) -> dict[str, str]:
    """Give the variables that srun sets for a task of a job of two machines, or of one task."""
    a_machine = max(1, tasks // 2)
    return {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NAME": "dfl",
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(a_machine),
        "SLURM_NNODES": str(tasks // a_machine),
        "SLURM_NODELIST": "localhost",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % a_machine),
        "SLURM_NODEID": str(rank // a_machine),
    }


def job_of_torchrun(rank: int, count: int, port: int) -> dict[str, str]:
    """Give the variables that torchrun sets for one of so many processes of one machine."""
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
    }


def free_port() -> int:
    """Find a port of this machine on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def tiny_resnet(prefix: str, weights: Path) -> list[str]:
    """Name a tiny backbone whose weights are in a file, where options begin with a prefix."""
    name = f"--{prefix}backbones.tiny"
    return [
        f"{name}=dfl.backbones.TimmBackbone",
        f"{name}.model=test_resnet",
        f"{name}.weights={weights}",
        f"{name}.input_size=32",
    ]


def tuned_resnet(weights: Path) -> dict[str, Any]:
    """Describe the same network as a baseline of a study, which fine-tunes it."""
    return {
        "class_path": "dfl.heads.FineTuneTask",
        "init_args": {
            "model": "test_resnet",
            "weights": str(weights),
            "input_size": 32,
            "optimizer": {"class_path": "torch.optim.Adam"},
        },
    }


def image_data(root: Path) -> list[str]:
    """Name the two small dataset pairs of the `image_root` fixture."""
    return [
        "--data=dfl.data.ImageDataModule",
        "--data.source=dfl.data.Pairs",
        f"--data.source.root={root}",
        "--data.source.pairs={alpha: {real: alpha, fake: alpha}, beta: {real: beta, fake: beta}}",
        "--data.crop=dfl.data.Resize",
        "--data.crop.size=32",
        "--data.batch_size=8",
        "--data.splits.val_fraction=0.25",
    ]


def write_features(
    out: Path,
    *,
    rows: int = 160,
    dim: int = 16,
    seed: int = 0,
    layers: Sequence[str] = ("tiny.pooled",),
) -> None:
    """Write a feature folder of two overlapping Gaussian classes in two dataset pairs."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % 2
    paths = [f"{i:04d}.png" for i in range(rows)]
    frame = pd.DataFrame(
        {
            "path": paths,
            "label": label,
            "dataset": np.where(np.arange(rows) % 4 < 2, "alpha", "beta"),
            "generator": np.where(label == 0, "real", np.where(np.arange(rows) % 4 < 2, "g", "h")),
            "split": np.array(["train", "train", "train", "val", "test"])[np.arange(rows) // 4 % 5],
            "group": paths,
        }
    )
    spec = tuple(FeatureLayer(name, dim, "ab" * 32) for name in layers)
    metadata = {"fingerprint": "cd" * 32, "backbones": {}, "preprocess": {}}
    with new_store(out, Manifest(frame, Path("images")), spec=spec, metadata=metadata) as matrices:
        for matrix in matrices.values():
            matrix[:] = rng.normal(size=(rows, dim)) + label[:, None]
