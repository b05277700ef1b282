"""Small feature folders and trainers, for the tests of the tasks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dfl.app.quiet import quiet_lightning
from dfl.data.manifest.manifest import Manifest
from dfl.features.datamodule import FeatureDataModule
from dfl.features.store import new_store
from dfl.types import FeatureLayer, FeatureSpec

SPEC = (FeatureLayer("clip.pooled", 4, "aa" * 32), FeatureLayer("dino.pooled", 2, "bb" * 32))
ADAM = lambda parameters: torch.optim.Adam(parameters, lr=0.05)  # noqa: E731


def feature_folder(
    out: Path, *, spec: FeatureSpec = SPEC, change: Callable[[pd.DataFrame], None] | None = None
) -> Path:
    """Write 60 rows of two overlapping classes; pairs p and q share the real images."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(20):
        split = ("train", "train", "train", "val", "test")[i % 5]
        for pair in "pq":
            rows.append([f"r{i:02d}.png", 0, pair, "real", split, f"r{i}"])
        rows.append([f"f{i:02d}.png", 1, "pq"[i % 2], ("gan", "ldm")[i % 2], split, f"f{i}"])
    columns = ["path", "label", "dataset", "generator", "split", "group"]
    frame = pd.DataFrame(rows, columns=columns)
    if change is not None:
        change(frame)
    images, image_of_row = np.unique(frame["path"], return_inverse=True)
    metadata = {"fingerprint": "cd" * 32, "backbones": None, "preprocess": None}
    with new_store(out, Manifest(frame, Path("images")), spec=spec, metadata=metadata) as layers:
        for matrix in layers.values():
            noise = rng.normal(size=(len(images), matrix.shape[1]))[image_of_row]
            matrix[:] = (noise + frame["label"].to_numpy()[:, None]) * [3] + 5
    return out


def trainer(root: Path, **arguments: Any) -> pl.Trainer:
    """A trainer on the CPU that writes nothing."""
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "default_root_dir": root,
    }
    return pl.Trainer(**settings | arguments)


def run(what: str, task: pl.LightningModule, features: Path, **arguments: Any) -> pl.Trainer:
    """Fit, validate, test or predict a task on a feature folder."""
    given = {name: arguments.pop(name) for name in ("layers", "batch_size") if name in arguments}
    data = FeatureDataModule(features, **{"batch_size": 16} | given)
    return run_on(what, task, data, root=features.parent, **arguments)


def run_on(
    what: str,
    task: pl.LightningModule,
    data: pl.LightningDataModule,
    *,
    root: Path = Path("nowhere"),
    **arguments: Any,
) -> pl.Trainer:
    """Fit, validate, test or predict a task on the batches of a data module."""
    ckpt = {"ckpt_path": arguments.pop("ckpt_path")} if "ckpt_path" in arguments else {}
    quiet = {"verbose": False} if what in ("validate", "test") else {}
    with quiet_lightning():
        made = trainer(root, **arguments)
        getattr(made, what)(task, datamodule=data, **ckpt, **quiet)
    return made


def batch(features: Tensor, label: list[int]) -> dict[str, Any]:
    """A batch as a data module gives it."""
    count = len(label)
    return {
        "features": features,
        "label": torch.tensor(label),
        "path": [f"{i}.png" for i in range(count)],
        "dataset": ["p"] * count,
        "generator": ["g"] * count,
        "index": torch.arange(count),
    }
