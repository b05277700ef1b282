"""The sub-commands fit, validate, test and predict: Lightning's CLI, with what every run needs."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, WandbLogger

# short class names, as in --data.source Pairs, resolve where their module is imported
import dfl.app.register
import dfl.heads
from dfl.app.ckpt_path import OF_FIT, WORDS, find_checkpoint, runs_of
from dfl.app.parser import is_given
from dfl.app.prediction import EndWhenAsked, device_kind
from dfl.app.quiet import quiet_lightning
from dfl.backbones.precision import settle_precision
from dfl.data import ImageDataModule
from dfl.errors import CheckpointError, ConfigError
from dfl.features.datamodule import FeatureDataModule
from dfl.files import writing
from dfl.heads.storage.checkpoint import HeadDescription, read_checkpoint
from dfl.heads.storage.movable_checkpoint import earlier_best, save_whole
from dfl.heads.tasks.scoring import ScoringTask
from dfl.recipe import fingerprint_of
from dfl.report.runs.results_printer import ResultsPrinter
from dfl.report.runs.run_dir import run_dir
from dfl.report.runs.score_writer import ScoreWriter
from dfl.report.runs.wandb_report import WandbReport
from dfl.report.throughput_bar import ThroughputBar

for _name in {*dir(dfl.heads)} - {"SklearnHeadTask"}:  # which `dfl heads` fits
    getattr(dfl.heads, _name)  # imports the module that defines it

logger = logging.getLogger(__name__)

REQUEUED: Final = Path("runs") / "requeued"
"""Where a run in a job of SLURM keeps what it goes on from when SLURM starts it again."""


@dataclass
class LightningOptions:
    r"""What Lightning's commands take, in short; Lightning's own list is longer.

    A run is a model, data and a trainer, each a class with its options, or a YAML file of
    configs/model, configs/data and configs/trainer; configs/experiment has whole runs in one file.

    Example:
        dfl fit --trainer configs/trainer/default.yaml --model configs/model/linear_probe.yaml \
            --data FeatureDataModule --data.features features/combined
        dfl test --config runs/dfl/version_0/config.yaml \
            --ckpt_path runs/dfl/version_0/checkpoints/best.ckpt

    `--help=all` lists everything that Lightning takes.

    Args:
        model: What is trained, such as LinearProbeTask; --model.optimizer and its options say how.
        data: Images, or the features of `dfl extract` (FeatureDataModule).
        trainer: Lightning's trainer: --trainer.max_epochs, --trainer.accelerator,
            --trainer.devices, --trainer.precision, --trainer.logger and others.
        ckpt_path: The checkpoint to go on from (fit) or to evaluate (validate, test and predict,
            which need one); best or last for that of the newest run.
        seed_everything: The seed of all random numbers.
    """

    model: ScoringTask
    data: ImageDataModule | FeatureDataModule
    trainer: Trainer | None = None
    ckpt_path: str | None = None
    seed_everything: int = 0


class RunConfigSaver(SaveConfigCallback):
    """Keep the resolved config in the run's folder, and send it to W&B.

    Lightning's own callback writes to ``trainer.log_dir``, which under W&B is shared by all runs.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write ``config.yaml``; called on the first process only."""
        file = run_dir(trainer) / self.config_filename
        # without a logger there is no folder of this run, and the working directory is the user's
        if trainer.loggers and not is_given(file, self.config):
            with writing(file) as partial:
                partial.write_text(
                    self.parser.dump(self.config, skip_unset=False), encoding="utf-8"
                )
        for each in trainer.loggers:
            if isinstance(each, WandbLogger):
                config = self.config.as_dict()
                # a run that goes on has one already
                each.experiment.config.update({"config": config}, allow_val_change=True)


class DflCLI(LightningCLI):
    """Lightning's CLI for one command, which looks at the checkpoint before anything is built."""

    def __init__(self, command: str, **kwargs: Any) -> None:  # noqa: ANN401  # of the base class
        self._command = command
        super().__init__(**kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static there
        """Give the command that was asked for: a parser of each other one takes time to make."""
        return {self._command: LightningCLI.subcommands()[self._command]}

    _trained_in: str | None = None

    def parse_arguments(self, parser: Any, args: Any) -> None:  # noqa: ANN401
        """Parse, and look at the checkpoint."""
        super().parse_arguments(parser, args)
        config, command = self.config[self.config.subcommand], self.config.subcommand
        if config.ckpt_path is None:
            if command in ("validate", "test", "predict"):
                raise CheckpointError(
                    f"{command} needs the checkpoint of a run: --ckpt_path FILE.ckpt, best or last"
                )
            return
        if command == "fit" and config.ckpt_path in OF_FIT:
            return
        found = find_checkpoint(config.ckpt_path, config.trainer.as_dict())
        if found is not None:
            if config.ckpt_path in WORDS:
                logger.info("%s checkpoint of the newest run: %s", config.ckpt_path, found)
            self._trained_in = HeadDescription.load(read_checkpoint(found)).origin.precision
            config.ckpt_path = str(found)
        elif command == "fit":  # as in a script that is started again and again
            logger.info("no run has kept a checkpoint yet, so this one begins anew")
            config.ckpt_path = None
        else:
            where = ", ".join(map(str, runs_of(config.trainer.as_dict())))
            raise CheckpointError(
                f"{config.ckpt_path}: no run in {where} has kept a checkpoint; give --ckpt_path "
                "FILE.ckpt"
            )

    def before_instantiate_classes(self) -> None:
        """Leave the results to `ResultsPrinter`, and show no bar where none is wanted.

        Raises:
            ConfigError: If layers of a backbone would be replaced.
        """
        config = self.config[self.config.subcommand]
        if config.trainer.sync_batchnorm:
            raise ConfigError(
                "trainer.sync_batchnorm: would replace layers of timm's networks by others without "
                "their activation; leave it out, and take larger batches or a network without "
                "batch norm"
            )
        if config.trainer.enable_progress_bar is False:
            callbacks = self.trainer_defaults["callbacks"]
            self.trainer_defaults["callbacks"] = [
                callback for callback in callbacks if not isinstance(callback, ThroughputBar)
            ]
        if "verbose" in config:
            config.verbose = False  # Lightning's own table says the same, longer

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401  # as in the base class
        """Build the trainer; a run that SLURM interrupts is found again by itself alone.

        Images are seen in the precision that the checkpoint was trained in, unless one is given.
        """
        config = self.config[self.config.subcommand].trainer
        given = config.default_root_dir
        if given is None and (job := _job_of_slurm()):
            # Lightning goes on from whatever run left hpc_ckpt_*.ckpt in this folder
            run = fingerprint_of(self.parser.dump(self.config, skip_unset=False))
            kwargs["default_root_dir"] = REQUEUED / f"{job}-{run[:12]}"
        from_pixels = not isinstance(self.datamodule, FeatureDataModule)
        if self._trained_in and from_pixels and config.precision is None:
            kind = device_kind(str(config.accelerator))
            kwargs["precision"] = settle_precision(None, kind, recorded=self._trained_in)
        return super().instantiate_trainer(**kwargs)

    def instantiate_classes(self) -> None:
        """Build trainer, model and data.

        Raises:
            ConfigError: If Lightning or a class refuses a value.
        """
        try:
            super().instantiate_classes()
        except ValueError as err:
            raise ConfigError(str(err)) from err
        save_whole(self.trainer)
        if self.trainer.is_global_zero and any(map(_is_online, self.trainer.loggers)):
            import wandb

            wandb.login(verify=False)  # a missing key is met now, not after the images are read

    def after_fit(self) -> None:
        """Say which checkpoint to go on with."""
        best = self.trainer.checkpoint_callback
        if not isinstance(best, ModelCheckpoint) or not self.trainer.is_global_zero:
            return
        if best.best_model_path and best.best_model_score is not None:
            found = f"{best.monitor} {best.best_model_score:.4f}"
            print(f"best checkpoint: {best.best_model_path} ({found})")
            resumed = self.config.fit.ckpt_path
            if resumed in (None, *OF_FIT):
                return
            if (earlier := earlier_best(Path(resumed), best)) is not None:
                path, value = earlier
                print(f"the run that it went on with has a better one: {path} ({value:.4f})")


def _job_of_slurm() -> str:
    """Give the number that a job keeps when SLURM starts it again; empty where there is none."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def run_trainer(args: list[str]) -> None:
    """Run fit, validate, test or predict.

    Args:
        args: The command line, the sub-command first.

    Raises:
        ArgumentError: If an argument is unknown, missing or of the wrong type.
        DflError: If the data, the weights or the checkpoint cannot be used.
    """
    raising = {"exit_on_error": False, "prog": "dfl"}
    callbacks = [ThroughputBar(), ScoreWriter(), ResultsPrinter(), WandbReport(), EndWhenAsked()]
    with quiet_lightning():
        DflCLI(
            args[0],
            args=args,
            subclass_mode_model=True,
            subclass_mode_data=True,
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # no task stores its arguments; saves a dump
            seed_everything_default=0,
            save_config_callback=RunConfigSaver,
            save_config_kwargs={"save_to_log_dir": False},
            # Lightning's table of modules says nothing of a head, and counts no operations
            trainer_defaults={"callbacks": callbacks, "enable_model_summary": False},
            parser_kwargs=raising | {args[0]: raising},
        )


def _is_online(logger: Logger) -> bool:
    """Tell whether a logger sends a run to W&B."""
    mode = os.environ.get("WANDB_MODE", "online")
    return isinstance(logger, WandbLogger) and mode == "online" and not logger._offline
