"""Keeping Lightning's output to what concerns the user of `dfl`."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dfl.processes import launched_rank

_BESIDE_THE_POINT: Final = (
    # `dfl` gives the arguments itself, so that its entry can be called in process
    "LightningCLI's args parameter is intended to run",
    # features come from a memory map: workers would only cost time
    "The '.*_dataloader' does not have many workers",
    # a test writes to a folder of its own; where the checkpoint came from does not matter to it
    "The dirpath has changed from",
    # a process whose shards are all done has nothing to predict, nor has a finished extraction
    r"Total length of `\w+` across ranks is zero",
    # a head has few steps an epoch, and the machine may have few cores
    "The number of training batches .* is smaller than the logging interval",
    "This DataLoader will create .* worker processes",
    # the size that the summary prints is of 32 bit weights, which is what heads have
    "Precision .* is not supported by the model summary",
    # a test needs neither the checkpoints nor the early stopping of its fit
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    # what is moved to the device is the task's affair, whatever the data module
    "You have overridden `.*` in `LightningModule` but have passed in a `LightningDataModule`",
    # a frozen backbone is meant to stay in eval mode
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # the metrics are computed from the scores of all processes, so each logs the same
    "It is recommended to use `self.log",
    # on a cluster, of what is one process on purpose
    "The `srun` command is available on your system but is not used",
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)

_NO_NEWS: Final = (
    "Tip: For seamless cloud",
    "PU available: False",
    "Detected KeyboardInterrupt",  # the entry says what ended it
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out advertisements, absent devices, and what a user can do nothing about."""
    # Lightning's own use of jsonargparse
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    said = {logging.getLogger(name): is_news for name, is_news in _FILTERS.items()}
    for log, is_news in said.items():
        log.addFilter(is_news)
    try:
        with warnings.catch_warnings():
            for message in _BESIDE_THE_POINT:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for log, is_news in said.items():
            log.removeFilter(is_news)


def _is_news(record: logging.LogRecord) -> bool:
    said = record.getMessage()
    return not any(each in said for each in _NO_NEWS)


def _is_first(record: logging.LogRecord) -> bool:
    """Let one process speak of signals for all, which get the same ones."""
    return launched_rank() == 0 and "Setting signal handlers" not in record.getMessage()


_FILTERS: Final = {
    "lightning.pytorch.utilities.rank_zero": _is_news,
    "lightning.pytorch.trainer.connectors.signal_connector": _is_first,
}
