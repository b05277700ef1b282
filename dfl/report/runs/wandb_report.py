"""The callback that puts figures, results and mistakes into a Weights & Biases run."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from dfl.evaluation import known_rows, metric_table, most_wrong, probability
from dfl.report.figures.plots import confusion_figure, figure_image, roc_figure
from dfl.report.figures.thumbnail import thumbnail
from dfl.report.runs.task_scores import task_scores
from dfl.types import FAKE

if TYPE_CHECKING:
    import wandb

    _Content = dict[str, wandb.Image | wandb.Table | list[wandb.Image]]

logger = logging.getLogger(__name__)


class WandbReport(Callback):
    """Log ROC curve, confusion matrix, results table and the most wrong images to W&B.

    It does so after a test (keys ``test/...``), and for the last validation of a fit and after a
    validation of its own (``val/...``). Without a W&B logger it does nothing. An image that cannot
    be shown, or a report that fails, is a warning in the log and never ends the run.

    Args:
        n_wrong: How many of the most wrong images to show.
        size_px: Longer side of their thumbnails.
        threshold: A score above it says fake.
    """

    def __init__(self, n_wrong: int = 32, size_px: int = 160, threshold: float = 0.0) -> None:
        super().__init__()
        self.n_wrong = n_wrong
        self.size_px = size_px
        self.threshold = threshold
        self._validated = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier validations."""
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report a validation of its own; during a fit only note that there was one."""
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val")
        elif not trainer.sanity_checking:
            self._validated = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the last validation of the fit."""
        if self._validated:
            self._report(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the test."""
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: Trainer, pl_module: LightningModule, prefix: str) -> None:
        runs = [each for each in trainer.loggers if isinstance(each, WandbLogger)]
        if not runs or not trainer.is_global_zero:
            return
        scores = task_scores(pl_module, type(self).__name__)
        if known_rows(scores).empty:
            logger.info("W&B report of %s: no labelled image has a score, so there is none", prefix)
            return
        try:
            for run in runs:
                content = self._content(scores, trainer, prefix)
                step = {"trainer/global_step": trainer.global_step}
                run.experiment.log(
                    {f"{prefix}/{key}": value for key, value in content.items()} | step
                )
        except Exception as err:  # whatever W&B or a plot throws must not cost a trained model
            logger.warning("W&B report of %s failed: %s: %s", prefix, type(err).__name__, err)

    def _content(self, scores: pd.DataFrame, trainer: Trainer, prefix: str) -> "_Content":
        import wandb

        confusion = confusion_figure(scores, threshold=self.threshold, title=prefix)
        table = metric_table(scores, threshold=self.threshold)
        return {
            "roc": wandb.Image(figure_image(roc_figure(scores, title=prefix))),
            "confusion": wandb.Image(figure_image(confusion)),
            "results": wandb.Table(dataframe=table.astype({"scope": object, "name": object})),
            **self._mistakes(scores, trainer),
        }

    def _mistakes(self, scores: pd.DataFrame, trainer: Trainer) -> "_Content":
        import wandb

        picked = most_wrong(scores, self.n_wrong, threshold=self.threshold)
        said, truth = picked["score"] > self.threshold, picked["label"] == FAKE
        listed = picked[["path", "dataset", "generator", "score"]].assign(
            prob=probability(picked["score"]),
            truth=truth.map({True: "fake", False: "real"}),
            wrong=said != truth,
        )
        pictures: list[wandb.Image | None] = []
        for path, kind, prob in listed[["path", "generator", "prob"]].itertuples(index=False):
            found = _thumbnail(trainer, path, self.size_px)
            caption = f"{kind}, fake with {100 * prob:.1f} %: {path}"
            pictures.append(None if found is None else wandb.Image(found, caption=caption))
        if missing := pictures.count(None):
            logger.warning("W&B report: %d of %d thumbnails left out", missing, len(pictures))
        rows = zip(pictures, *(listed[name].tolist() for name in listed.columns), strict=True)
        table = wandb.Table(columns=["image", *listed.columns], data=[list(row) for row in rows])
        # The pictures of a table lie in an artifact, outside the folder of an offline run, so they
        # are logged as a panel as well.
        shown = [picture for picture in pictures if picture is not None]
        content: _Content = {"most_wrong": table}
        return content | ({"most_wrong_images": shown} if shown else {})


def _thumbnail(trainer: Trainer, path: str, size_px: int) -> Image.Image | None:
    """Find and decode an image; None, and a line in the log, where that is not possible."""
    manifest = getattr(getattr(trainer, "datamodule", None), "manifest", None)
    if manifest is None:
        logger.info("no thumbnail of %s: the data module has no manifest to find it by", path)
        return None
    try:
        return thumbnail(Path(manifest.resolve(path)), size_px=size_px)
    except Exception as err:  # a broken image is listed without its picture
        logger.warning("no thumbnail of %s: %s", path, err)
        return None
