"""Detectors of every kind on tiny backbones, shared by the tests of what loads them."""

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from dfl.backbones import TimmBackbone
from dfl.commands.extract import extract
from dfl.commands.heads import heads
from dfl.data import ImageDataModule, Pair, Pairs, Resize, Splits
from dfl.heads.estimators import lda
from dfl.heads.tasks.bottleneck import BottleneckTask
from dfl.heads.tasks.linear_probe import LinearProbeTask
from tests.heads.small_tasks import ADAM, run


def train_detectors(root: Path, image_root: Path) -> None:
    """Make features of two backbones, and heads that are trained on the second one alone."""
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_vit").state_dict(), root / f"{name}.safetensors")
    made = {
        name: TimmBackbone("test_vit", weights=str(root / f"{name}.safetensors"), input_size=32)
        for name in ("first", "second")
    }
    data = ImageDataModule(
        Pairs(image_root, {"alpha": Pair(real="alpha", fake="alpha")}),
        crop=Resize(32),
        batch_size=8,
        splits=Splits(val_fraction=0.25, folder=root / "splits"),
    )
    extract(data, made, root / "features", accelerator="cpu", devices=1)
    for name, task in (
        ("probe", LinearProbeTask(optimizer=ADAM)),
        ("bottleneck", BottleneckTask(3, [8], 1.0, optimizer=ADAM)),
        ("unlabelled", BottleneckTask(3, [8], optimizer=ADAM)),
    ):
        fitted = run("fit", task, root / "features", layers=["second"], max_epochs=3)
        fitted.save_checkpoint(root / f"{name}.ckpt")
        if name == "probe":
            run("predict", task, root / "features", layers=["second"])
            task.scores.to_csv(root / "probe.csv")
    heads(root / "features", root / "heads", heads={"lda": lda()}, layers=["second"])
