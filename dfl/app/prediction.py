"""Lightning's prediction loop as the commands use it: its result is a file."""

import os
import signal
import threading

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from dfl.app.quiet import quiet_lightning
from dfl.errors import ConfigError, one_line
from dfl.processes import ASKS, end_group, end_when_asked
from dfl.report.throughput_bar import ThroughputBar


def device_kind(accelerator: str) -> str:
    """Tell which kind of device a trainer with this accelerator runs on.

    Args:
        accelerator: Lightning's accelerator: auto, cpu, gpu, cuda, ...

    Returns:
        As torch names it: ``cpu``, ``cuda``, ``mps``, ...
    """
    if accelerator in ("auto", "gpu"):
        if CUDAAccelerator.is_available():
            return "cuda"
        return "mps" if MPSAccelerator.is_available() else "cpu"
    return accelerator


def device_numbers(accelerator: str, devices: int | str) -> list[int]:
    """List the devices of this machine that a trainer would take, as it numbers them.

    Args:
        accelerator: Lightning's accelerator.
        devices: Number of devices, their numbers as Lightning takes them, or auto.

    Returns:
        The numbers of the GPUs; 0 alone for a CPU and whatever else is there once.

    Raises:
        ConfigError: If there are fewer.
    """
    if device_kind(accelerator) != "cuda":
        return [0]
    try:
        return CUDAAccelerator.parse_devices(-1 if devices == "auto" else devices) or [0]
    except MisconfigurationException as err:
        raise ConfigError(f"devices: {one_line(err)}") from err


def run_prediction(
    task: pl.LightningModule,
    data: pl.LightningDataModule,
    *,
    writer: pl.Callback | None = None,
    accelerator: str,
    devices: int | str,
    num_nodes: int = 1,
    strategy: str = "auto",
) -> pl.Trainer:
    """Predict all that a data module has.

    Args:
        task: What predicts.
        data: What is predicted.
        writer: The callback that keeps the predictions; None where the task itself does.
        accelerator: Lightning's accelerator.
        devices: Number of devices on each node, or auto.
        num_nodes: Number of nodes.
        strategy: Lightning's strategy.

    Returns:
        The trainer, which knows whether this is the first process.

    Raises:
        ConfigError: If Lightning refuses a value.
    """
    with quiet_lightning():
        try:
            trainer = pl.Trainer(
                accelerator=accelerator,
                devices=devices,
                num_nodes=num_nodes,
                strategy=strategy,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                # in a job of SLURM, Lightning would load the weights that any interrupted run left
                # in the working directory
                default_root_dir=os.devnull,
                # the data modules of dfl deal images to processes themselves
                use_distributed_sampler=False,
                callbacks=[ThroughputBar(), *filter(None, [writer]), EndWhenAsked()],
            )
        except ValueError as err:
            raise ConfigError(str(err)) from err
        trainer.predict(task, datamodule=data, return_predictions=False)
    end_group()  # what follows, the first process does alone
    return trainer


class EndWhenAsked(pl.Callback):
    """End a run when a scheduler asks for it, as Ctrl-C does; put in the place of Lightning's ways.

    On SIGTERM Lightning takes note, for training loops, and tells the other processes, which are
    told by the scheduler as well: what they then wait for is not the same. On SIGUSR1, in a job of
    SLURM, it keeps what a prediction does not have.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signal of a fit, a validation or a test."""
        _end_on(signal.SIGTERM)

    on_sanity_check_start = on_validation_start = on_test_start = on_train_start

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals of a prediction."""
        _end_on(*ASKS)


def _end_on(*numbers: signal.Signals) -> None:
    """Put a handler in the place of Lightning's, which it takes back when the run ends."""
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            signal.signal(number, end_when_asked)
