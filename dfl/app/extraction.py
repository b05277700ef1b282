"""Running an extraction with Lightning's processes, and describing what made its features."""

from collections.abc import Mapping

import lightning.pytorch as pl
import timm
import torch

from dfl import __version__
from dfl.app.prediction import run_prediction
from dfl.backbones import Backbone
from dfl.backbones.runner import Runner
from dfl.data import ImageDataModule
from dfl.features.extraction import ExtractionDataModule, FeatureExtractionTask
from dfl.features.writer import FeatureWriter, join_all
from dfl.recipe import Recipe, describe


def run_extraction(
    images: ExtractionDataModule,
    runner: Runner,
    accelerator: str,
    devices: int | str,
    num_nodes: int = 1,
    strategy: str = "auto",
    *,
    writer: FeatureWriter | None = None,
) -> pl.Trainer:
    """Make feature folders, with Lightning's processes.

    Args:
        images: What is to be made of which images.
        runner: What runs the backbones.
        accelerator: Lightning's accelerator.
        devices: Number of devices on each node, or auto.
        num_nodes: Number of nodes.
        strategy: Lightning's strategy.
        writer: What writes them; an own one by default.

    Returns:
        The trainer, which knows whether this is the first process.
    """
    task = FeatureExtractionTask(runner, images)
    try:
        trainer = run_prediction(
            task,
            images,
            writer=writer or FeatureWriter(images),
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
        )
        if trainer.is_global_zero:  # the others need not wait for it
            join_all(images)
        return trainer
    finally:
        task.close()
        images.close()


def origin_of(backbones: Mapping[str, Backbone], data: ImageDataModule, runner: Runner) -> Recipe:
    """Describe what makes features, as it is stored beside them.

    Args:
        backbones: The backbones by name.
        data: How they see images.
        runner: What runs them.
    """
    versions: Recipe = {"dfl": __version__, "torch": torch.__version__, "timm": timm.__version__}
    return {
        "backbones": describe(backbones),
        "preprocess": data.preprocess(),
        **runner.description,
        "versions": versions,
    }
