"""The command `detect`: a folder of images in, a CSV of scores out."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import pandas as pd
from torch import Tensor

from dfl.app.prediction import run_prediction
from dfl.backbones import Backbone
from dfl.data import Augmentation, Crop, FolderDataModule
from dfl.errors import BackboneError, CheckpointError, ConfigError
from dfl.heads.storage.checkpoint import HeadDescription, read_checkpoint
from dfl.heads.storage.head_folder import load_head
from dfl.heads.tasks.bottleneck import BottleneckTask
from dfl.heads.tasks.finetune import FineTuneTask
from dfl.heads.tasks.linear_probe import LinearProbeTask
from dfl.heads.tasks.scoring import ScoringTask
from dfl.heads.tasks.sklearn_head import SklearnHeadTask
from dfl.recipe import Plain, build, public_name
from dfl.report.runs.score_writer import ScoreWriter

__all__ = ["detect"]

_TASKS: dict[str, type[ScoringTask]] = {
    public_name(task): task for task in (LinearProbeTask, BottleneckTask, FineTuneTask)
}


def detect(
    detector: Path,
    images: Path,
    out: Path,
    weights: dict[str, str] | None = None,
    on_unreadable: Literal["error", "skip"] = "error",
    batch_size: int = 32,
    num_workers: int = 2,
    accelerator: str = "auto",
    devices: int | str = "auto",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Score a folder of images with a trained detector, into a CSV.

    The CSV has a row an image: path, score (higher = fake), prob and verdict. The detector of a
    study has its threshold and its calibration from validation images; any other one says fake
    above 0, and prob is the score's logistic function, a probability as far as the head is
    calibrated.

    Args:
        detector: A checkpoint (.ckpt) that `dfl fit` made, the folder of a head that `dfl heads`
            made, or either of them that `dfl study` chose.
        images: A folder of images; folders in it are searched too.
        out: The CSV to write.
        weights: Local weight files by backbone name, where they are no longer where the detector
            was trained.
        on_unreadable: Stop at an unreadable image, or leave it out and list it beside `out`, in
            NAME-unreadable.csv.
        batch_size: Images in a batch.
        num_workers: Processes that decode.
        accelerator: Lightning's accelerator: auto, cpu, gpu, ...
        devices: Number of devices, or auto.
        overwrite: Replace the CSV if it is there already.

    Returns:
        The score table.

    Raises:
        ConfigError: If `out` does not end in .csv, or is there already.
        CheckpointError: If the detector cannot be read, or its backbones are other ones than it was
            trained on.
        DataError: If there are no images, or one cannot be read.
    """
    if out.suffix.lower() != ".csv":
        raise ConfigError(f"out: must end in .csv, got {out}")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} is there already; name another, or give --overwrite=true")
    task, preprocess, (slope, intercept) = _load(detector, weights or {})
    data = FolderDataModule(
        root=images,
        crop=cast(Crop, build(preprocess["crop"])),
        eval_transforms=cast(list[Augmentation], build(preprocess["transforms"])),
        on_unreadable=on_unreadable,
        unreadable_file=str(out.with_name(f"{out.stem}-unreadable.csv")),
        batch_size=batch_size,
        num_workers=num_workers,
        seed=cast(int, preprocess.get("seed", 0)),
    )
    # scores are counted from the threshold, which the calibration is not
    writer = ScoreWriter(str(out), calibration=(slope, intercept + slope * task.threshold))
    trainer = run_prediction(task, data, writer=writer, accelerator=accelerator, devices=devices)
    if trainer.is_global_zero:
        fakes = int((task.scores["score"] > 0).sum())
        print(f"wrote {out}: {len(task.scores)} images, {fakes} of them judged fake")
    return task.scores


def _load(
    detector: Path, weights: dict[str, str]
) -> tuple[ScoringTask, dict[str, Plain], tuple[float, float]]:
    if detector.is_dir():
        head = load_head(detector)
        backbones, preprocess = _origin(detector, head.backbones, head.preprocess, weights)
        return SklearnHeadTask(head, backbones), preprocess, head.calibration
    checkpoint = read_checkpoint(detector)
    about = HeadDescription.load(checkpoint)
    backbones, preprocess = _origin(detector, about.backbones, about.preprocess, weights)
    if about.task not in _TASKS:
        raise CheckpointError(f"{detector} holds a {about.task}; known: {', '.join(_TASKS)}")
    # plain data rebuilds the task: the recipe has a class path and the arguments of the head
    # (a fine-tuned network stands on no backbones)
    arguments = {**about.architecture, **({"backbones": backbones} if backbones else {})}
    task = cast(ScoringTask, cast(Callable[..., object], _TASKS[about.task])(**arguments))
    task.on_load_checkpoint(checkpoint)
    task.load_state_dict(cast(dict[str, Tensor], checkpoint["state_dict"]))
    return task, preprocess, about.calibration


def _origin(
    detector: Path, backbones: Plain, preprocess: Plain, weights: dict[str, str]
) -> tuple[dict[str, Backbone], dict[str, Plain]]:
    if not isinstance(backbones, dict) or not isinstance(preprocess, dict):
        raise CheckpointError(
            f"{detector} does not say which backbones make its features; train it on pixels or on "
            "a folder of `dfl extract` (for codes, put the bottleneck in front of the head)"
        )
    if unknown := set(weights) - set(backbones):
        raise CheckpointError(
            f"weights for {sorted(unknown)}, but {detector} has the backbones {list(backbones)}"
        )
    for name, path in weights.items():
        recipe = cast(dict[str, dict[str, Plain]], backbones[name])
        if recipe["init_args"].get("pretrained") is False:  # that is, random ones
            del recipe["init_args"]["pretrained"]
        recipe["init_args"]["weights"] = path
    try:
        return cast(dict[str, Backbone], build(backbones)), preprocess
    except BackboneError as err:
        raise BackboneError(
            f"{err}; if the weights are elsewhere by now, say where: "
            f"--weights.{next(iter(backbones))} FILE"
        ) from err
