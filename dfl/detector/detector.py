"""Loading what `dfl fit`, `dfl heads` or `dfl study` trained, and scoring images with it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from PIL import Image

from dfl.app.prediction import device_kind
from dfl.backbones.precision import Precision, settle_precision
from dfl.data.images.dataset import collate
from dfl.data.images.decode import Decoded, decode_noting, decode_opened, read_image
from dfl.data.images.preprocess import Preprocess
from dfl.data.sources.folders import find_images
from dfl.detector.stored import read_detector
from dfl.errors import DataError, named
from dfl.evaluation import calibrated
from dfl.heads.tasks.scoring import ScoringTask
from dfl.types import UNKNOWN, Sample

logger = logging.getLogger(__name__)

Picture: TypeAlias = str | PathLike[str] | Image.Image


@dataclass(frozen=True)
class Detector:
    """A trained detector of generated images: backbones, head, preprocessing and operating point.

    Example:
        from dfl import Detector

        detector = Detector.load("studies/demo/best")
        detector(["a.jpg", Image.open("b.png")])  # path, score, prob, is_fake: one row each

    Attributes:
        task: What turns a batch of images into scores, in eval mode.
        preprocess: What becomes of a decoded image before it.
        calibration: Slope and intercept of the log-odds of fake in the score.
        trained_in: The numeric precision that it was trained in.
    """

    task: ScoringTask
    preprocess: Preprocess
    calibration: tuple[float, float]
    trained_in: str

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        weights: Mapping[str, str | PathLike[str]] | None = None,
        device: str = "auto",
        precision: Precision | None = None,
    ) -> "Detector":
        """Load a detector.

        Args:
            path: The folder of a head that `dfl heads` made, a checkpoint (.ckpt) that `dfl fit`
                made, or the folder ``best`` of a study.
            weights: Local weight files by backbone name, where they are no longer where the
                detector was trained.
            device: auto (an accelerator if there is one), cpu, cuda or mps.
            precision: Numeric precision of the network, auto for what the device is fast at; by
                default that of the training, or 32-true where the device is not fast in it.

        Returns:
            The detector.

        Raises:
            CheckpointError: If there is no detector there, or its backbones are other ones than it
                was trained on.
            BackboneError: If the weights of a backbone are not found.
            HeadError: If the head's folder is damaged.
            ConfigError: If the precision would round trained weights to 16 bit.
        """
        task, preprocess, (slope, intercept), trained_in = read_detector(
            Path(path), {name: str(file) for name, file in (weights or {}).items()}
        )
        kind = device_kind(device)
        task.run_in(settle_precision(precision, kind, recorded=trained_in))
        task.to(torch.device(kind)).eval()
        # scores are counted from the threshold, which the calibration is not
        return cls(task, preprocess, (slope, intercept + slope * task.threshold), trained_in)

    def __call__(
        self, images: Picture | Sequence[Picture], *, batch_size: int = 32
    ) -> pd.DataFrame:
        """Score images, as `dfl detect` does.

        Args:
            images: Image files, folders of them, and images that Pillow has opened; one alone
                counts as a list of one.
            batch_size: How many go through the network at once.

        Returns:
            One row an image, in the order given. ``path``: as given; of an opened image its file,
            or ``image <position>``. ``score``: higher = fake, counted from the detector's
            threshold. ``prob``: of fake, in [0, 1], as far as the detector is calibrated.
            ``is_fake``: whether the score is above 0.

        Raises:
            DataError: If an image cannot be read, or a folder has none.
        """
        if isinstance(images, str | PathLike | Image.Image):
            images = [images]
        images = [each for image in images for each in _in_folder(image)]
        self.task.on_predict_epoch_start()
        names: list[str] = []
        damaged: list[str] = []
        scores = [np.empty(0)]
        for start in range(0, len(images), batch_size):
            samples = [
                self._sample(image, index)
                for index, image in enumerate(images[start : start + batch_size], start)
            ]
            batch = collate(samples)
            batch["image"] = batch["image"].to(self.task.device)
            with torch.inference_mode():
                score = self.task.predict_step(batch, start)
            names += batch["path"]
            damaged += [
                f"{name} ({why})"
                for name, why in zip(batch["path"], batch["damage"], strict=True)
                if why
            ]
            scores.append(score.cpu().double().numpy())
        if damaged:
            logger.warning("read in spite of damage: %s", named(damaged))
        margin = np.concatenate(scores)
        prob = calibrated(margin, self.calibration)
        return pd.DataFrame({"path": names, "score": margin, "prob": prob, "is_fake": margin > 0})

    def _sample(self, image: Picture, index: int) -> Sample:
        if isinstance(image, Image.Image):
            name = str(getattr(image, "filename", "")) or f"image {index}"
            decoded = Decoded(decode_opened(image, name), "")
        elif isinstance(image, str | PathLike):
            name = str(Path(image))
            decoded = decode_noting(read_image(name), name)
        else:
            raise DataError(
                f"image {index} is a {type(image).__name__}; give a path, or an image of Pillow"
            )
        return Sample(
            image=self.preprocess.of(decoded.pixels, name),
            label=UNKNOWN,
            path=name,
            dataset="",
            generator="",
            index=index,
            damage=decoded.damage,
        )


def _in_folder(image: Picture) -> list[Picture]:
    """List the images of a folder; anything else stands for itself."""
    if not isinstance(image, str | PathLike) or not Path(image).is_dir():
        return [image]
    root, paths = find_images([Path(image)])
    if not paths:
        raise DataError(f"{image}: holds no image; give images or folders of them")
    return [root / path for path in paths]
