"""The callback that writes the scores of a test, and predictions for a user's own images."""

import logging
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer

from dfl.evaluation import calibrated, write_scores
from dfl.files import write_csv, writing
from dfl.report.runs.run_dir import run_dir
from dfl.report.runs.task_scores import task_scores

_FILE_ENDINGS: Final = (".csv", ".parquet")

logger = logging.getLogger(__name__)


class ScoreWriter(Callback):
    """Write ``scores.csv`` after a test and ``predictions.csv`` after a prediction, on rank 0.

    Nothing is written in a ``fast_dev_run``, unless ``out`` says where.

    Args:
        out: A file that ends in ``.csv`` (or ``.parquet``, for a test), or a folder; by default the
            run's folder, where the checkpoints are. Relative to the working directory.
        calibration: In a prediction, slope and intercept of the log-odds of fake in the score.
    """

    def __init__(
        self,
        out: str | None = None,
        calibration: tuple[float, float] = (1.0, 0.0),
    ) -> None:
        super().__init__()
        self.out = out
        self.calibration = calibration

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the score table."""
        if (scores := self._to_write(trainer, pl_module)) is None:
            return
        path = self._path(trainer, "scores.csv")
        write_scores(scores, path)
        logger.info("wrote %s", path)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write path, score, probability and verdict of each image."""
        if (scores := self._to_write(trainer, pl_module)) is None:
            return
        path = self._path(trainer, "predictions.csv")
        table = prediction_table(scores, calibration=self.calibration)
        with writing(path) as beside:
            write_csv(table, beside)
        fakes = int((table["verdict"] == "fake").sum())
        logger.info("wrote %s: %d images, %d of them judged fake", path, len(table), fakes)

    def _to_write(self, trainer: Trainer, pl_module: LightningModule) -> pd.DataFrame | None:
        """Fetch the scores that this process has to write; None if there are none."""
        if not trainer.is_global_zero or (self.out is None and _is_trial(trainer)):
            return None
        scores = task_scores(pl_module, type(self).__name__)
        if scores.empty:
            logger.info("The model gives no scores, so none are written")
            return None
        return scores

    def _path(self, trainer: Trainer, name: str) -> Path:
        if self.out is None:
            return run_dir(trainer) / name
        out = Path(self.out)
        return out if out.suffix.lower() in _FILE_ENDINGS else out / name


def prediction_table(
    scores: pd.DataFrame, *, calibration: tuple[float, float] = (1.0, 0.0)
) -> pd.DataFrame:
    """Turn scores into what a user reads.

    Args:
        scores: A score table.
        calibration: Slope and intercept of the log-odds of fake in the score.

    Returns:
        One row an image, in the same order: ``path``, ``score`` (higher = fake), ``prob`` (of
        fake, in [0, 1]), and ``verdict``: "fake" where the score is above 0, else "real".
    """
    score = scores["score"].to_numpy(dtype=np.float64)
    return pd.DataFrame(
        {
            "path": scores["path"].to_numpy(),
            "score": score,
            "prob": calibrated(score, calibration),
            "verdict": np.where(score > 0, "fake", "real"),
        }
    )


def _is_trial(trainer: Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))
