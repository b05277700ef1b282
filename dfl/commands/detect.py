"""The command `detect`: images in, a CSV of scores out."""

from pathlib import Path
from typing import Literal

import pandas as pd

from dfl.app.prediction import device_kind, run_prediction
from dfl.backbones.precision import Precision, settle_precision
from dfl.data import Folder, ImageDataModule
from dfl.data.images.decode import OnDamaged
from dfl.detector import Detector
from dfl.errors import ConfigError
from dfl.report.runs.score_writer import ScoreWriter


def detect(
    detector: Path,
    images: list[Path] | Path,
    out: Path,
    weights: dict[str, str] | None = None,
    on_unreadable: Literal["error", "skip"] = "error",
    on_damaged: OnDamaged = "warn",
    batch_size: int = 32,
    num_workers: int = 2,
    accelerator: str = "auto",
    devices: int | str = 1,
    precision: Precision | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Score images with a trained detector, into a CSV.

    The CSV has a row an image: path, score (higher = fake), prob and verdict. The detector of a
    study has its threshold and its calibration from validation images; any other one says fake
    above 0, and prob is the score's logistic function, a probability as far as the head is
    calibrated.

    Args:
        detector: A checkpoint (.ckpt) that `dfl fit` made, the folder of a head that `dfl heads`
            made, or either of them that `dfl study` chose.
        images: A folder of images, with the folders in it; or images, patterns ('photos/*.jpg') and
            folders, one or several.
        out: The CSV to write.
        weights: Local weight files by backbone name, where they are no longer where the detector
            was trained.
        on_unreadable: Stop where images are unreadable, and name them, or leave them out; in both
            cases they are listed beside `out`, in NAME-unreadable.csv.
        on_damaged: Score an image whose decoder got over damage, and list it in NAME-damaged.csv,
            or take it for unreadable.
        batch_size: Images in a batch.
        num_workers: Processes that decode.
        accelerator: Lightning's accelerator: auto, cpu, gpu, ...
        devices: Number of devices, or auto for all of them.
        precision: Numeric precision of the network, auto for what the hardware is fast at; by
            default that of the training, or 32-true where the hardware is not fast in it.
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
        raise ConfigError(f"{out} is there already; name another, or give --overwrite")
    # on the CPU and not cast yet: Lightning moves it to the device of each process
    loaded = Detector.load(detector, weights=weights, device="cpu", precision="32-true")
    kind = device_kind(accelerator)
    loaded.task.run_in(settle_precision(precision, kind, recorded=loaded.trained_in))
    data = ImageDataModule(
        Folder(images),
        crop=loaded.preprocess.crop,
        eval_transforms=list(loaded.preprocess.transforms),
        on_unreadable=on_unreadable,
        on_damaged=on_damaged,
        unreadable_file=out.with_name(f"{out.stem}-unreadable.csv"),
        batch_size=batch_size,
        num_workers=num_workers,
        seed=loaded.preprocess.seed,
    )
    writer = ScoreWriter(str(out), calibration=loaded.calibration)
    run_prediction(loaded.task, data, writer=writer, accelerator=accelerator, devices=devices)
    return loaded.task.scores
