"""The callback that prints the results of a test."""

import sys

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from dfl.evaluation import metric_table
from dfl.report.figures.terminal import print_metrics
from dfl.report.runs.task_scores import task_scores


class ResultsPrinter(Callback):
    """Print the metrics per dataset and generator after a test, or a validation of its own.

    Args:
        threshold: A score above it says fake.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table of the test set, on rank 0."""
        self._print(trainer, pl_module, "Test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table of the validation set, on rank 0, but not during a fit."""
        if trainer.state.fn == "validate":
            self._print(trainer, pl_module, "Validation")

    def _print(self, trainer: Trainer, pl_module: LightningModule, title: str) -> None:
        if not trainer.is_global_zero:
            return
        scores = task_scores(pl_module, type(self).__name__)
        if scores.empty:
            return  # an autoencoder alone does not classify
        table = metric_table(scores, threshold=self.threshold)
        console = Console(file=sys.stdout, highlight=False)
        console.print()  # a progress bar may have left its line open
        print_metrics(table, title=title, console=console)
