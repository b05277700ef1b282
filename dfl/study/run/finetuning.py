"""A study's baseline: a network fine-tuned or tuned on a table of images, scoring another."""

import hashlib
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray
from torch import Tensor

from dfl.app.prediction import EndWhenAsked, device_kind
from dfl.app.quiet import quiet_lightning
from dfl.artifacts import Kind, Store
from dfl.backbones.precision import SettledPrecision
from dfl.data import Augmentation, ImageDataModule, Manifest
from dfl.errors import CheckpointError, ConfigError
from dfl.folders import locked
from dfl.heads.storage.checkpoint import read_checkpoint
from dfl.heads.storage.movable_checkpoint import MovableCheckpoint, save_whole
from dfl.heads.tasks.finetune import FineTuneTask
from dfl.heads.tasks.tune import TuneTask
from dfl.recipe import Plain, Recipe, public_name
from dfl.report.throughput_bar import ThroughputBar

logger = logging.getLogger(__name__)

Baseline = FineTuneTask | TuneTask
"""What is trained on images, and stands in a study's tables beside heads on frozen features."""

_LAST = "last.ckpt"
_BEST = "best.ckpt"
_CHECKPOINT = "network.ckpt"
NETWORK = Kind(
    name="fine-tuned network",
    error=CheckpointError,
    document="network.json",
    format=1,
    files=(_CHECKPOINT,),
)


def fine_tune(
    task: Baseline,
    train: Manifest,
    *,
    data: ImageDataModule,
    store: Store,
    key: str,
    max_epochs: int,
    patience: int | None,
    seed: int,
    accelerator: str = "auto",
    device: int = 0,
    precision: SettledPrecision = "32-true",
    shown: bool = True,
) -> Path:
    """Fine-tune a network on some images, unless it is there.

    A training that was interrupted goes on at its last finished epoch and ends as it would have; a
    second process that wants the same one waits for it. Weights, order and augmentations follow
    from the seed; the random state of the caller is left as it was.

    Args:
        task: What is trained: its arguments, not its weights, which stay as they are.
        train: Images to learn from. Rows of the split ``train`` are learnt; the loss of the split
            ``val`` chooses the best epoch, or the last one is taken where there is none.
        data: How images are seen: crops and augmentations, batches, workers.
        store: Where networks are kept.
        key: What identifies the training: images, rows, settings and seed.
        max_epochs: Epochs at most.
        patience: Epochs without a better validation loss after which it ends; None never does.
        seed: The seed of the training.
        accelerator: Lightning's accelerator, of which one device is taken.
        device: The number of that device, among GPUs.
        precision: Numeric precision.
        shown: Whether to show how far it is.

    Returns:
        The checkpoint of its best epoch.

    Raises:
        ConfigError: If a setting cannot be carried out.
        BackboneError: If the network cannot be built or its weights do not fit.
        DataError: If there is no training image, or one cannot be read.
    """
    about: Recipe = {"network": training_settings(task), "seed": seed}
    workspace = store.workspace(key)
    with locked(store.path(key)):
        if store.get(key) is None:
            images = data.of(train, seed=seed)
            trainer = partial(_trainer, workspace, accelerator, device, precision, shown)
            with _quiet(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                best = _train(task, images, workspace, trainer, max_epochs, patience, seed)
            with store.making(key, about, workspace=workspace) as folder:
                shutil.copyfile(best, folder / _CHECKPOINT)
            shutil.rmtree(workspace)
    return checkpoint_of(store, key)


def values_in(checkpoint: Path) -> int:
    """Count the values that a training has learnt, those of its statistics included."""
    state = cast(dict[str, Tensor], read_checkpoint(checkpoint)["state_dict"])
    return sum(value.numel() for value in state.values() if value.is_floating_point())


def checkpoint_of(store: Store, key: str) -> Path:
    """Name the checkpoint of a fine-tuned network."""
    return store.path(key) / _CHECKPOINT


def score_network(
    task: Baseline,
    checkpoint: Path,
    images: Manifest,
    *,
    data: ImageDataModule,
    eval_transforms: Sequence[Augmentation] = (),
    accelerator: str = "auto",
    device: int = 0,
    precision: SettledPrecision = "32-true",
    shown: bool = True,
) -> NDArray[np.float64]:
    """Score images with a fine-tuned network.

    Args:
        task: What was trained.
        checkpoint: What `fine_tune` gave.
        images: All rows are scored, whatever their split.
        data: How images are seen.
        eval_transforms: What they go through after ``data.eval_transforms``.
        accelerator: Lightning's accelerator, of which one device is taken.
        device: The number of that device, among GPUs.
        precision: Numeric precision.
        shown: Whether to show how far it is.

    Returns:
        A score for every row of ``images``, in its order; higher = fake.

    Raises:
        DataError: If an image cannot be read.
    """
    # an image that serves several datasets is scored once
    once = images.frame.drop_duplicates("path").reset_index(drop=True)
    transforms = [*data.eval_transforms, *eval_transforms]
    seen = data.of(Manifest(once, images.root), eval_transforms=transforms)
    scored = task.untrained(pretrained=False)
    with _quiet(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        trainer = _trainer(checkpoint.parent, accelerator, device, precision, shown)
        trainer.predict(scored, datamodule=seen, ckpt_path=checkpoint, return_predictions=False)
    by_path = scored.scores.set_index("path")["score"]
    return by_path.loc[images.frame["path"]].to_numpy(dtype=np.float64)


def training_settings(task: Baseline) -> Recipe:
    """Describe what decides a training besides its images: network, optimizer and scheduler.

    The last two are functions, whose settings show when they are called on a parameter.

    Args:
        task: The task, trained or not.

    Returns:
        Plain data, the same in every process.

    Raises:
        ConfigError: If there is no optimizer, or it or the scheduler refuses its settings.
    """
    if task.optimizer is None:
        raise ConfigError("a baseline needs its optimizer, for example torch.optim.Adam")
    try:
        optimizer = task.optimizer([torch.nn.Parameter(torch.zeros(1))])
        scheduler = None if task.lr_scheduler is None else task.lr_scheduler(optimizer)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"a baseline's optimizer or lr_scheduler: {err}") from err
    return {
        **task.beginning(),
        "optimizer": {"class": _name(type(optimizer)), "settings": _plain(optimizer.defaults)},
        "lr_scheduler": None
        if scheduler is None
        else {"class": _name(type(scheduler)), "settings": _plain(scheduler.state_dict())},
    }


def _train(
    task: Baseline,
    images: ImageDataModule,
    folder: Path,
    trainer: Callable[..., pl.Trainer],
    max_epochs: int,
    patience: int | None,
    seed: int,
) -> Path:
    """Train until it is finished, or go on with what is in the folder; give the best checkpoint."""
    validated = bool((images.manifest.frame["split"] == "val").any())
    best, last = folder / (_BEST if validated else _LAST), folder / _LAST
    state = _read(last)
    resumes = state is not None
    if best.exists() and _has_ended(state, max_epochs, patience if validated else None):
        return best  # it was killed before it could be put in its place
    fresh = task.untrained(pretrained=False) if resumes else task.untrained()
    callbacks = [_EpochSeed(seed), *_keepers(folder, patience if validated else None, validated)]
    limit = {} if validated else {"limit_val_batches": 0}
    made = trainer(callbacks, max_epochs=max_epochs, num_sanity_val_steps=0, **limit)
    torch.manual_seed(seed)
    made.fit(fresh, datamodule=images, ckpt_path=last if resumes else None)
    if made.interrupted:
        raise KeyboardInterrupt  # Lightning ends quietly, and the training is not finished
    return best


def _read(last: Path) -> dict[str, Any] | None:
    """Read the checkpoint of the last epoch; None where there is none that can be read."""
    if not last.exists():
        return None
    try:
        return read_checkpoint(last)
    except CheckpointError as err:
        logger.warning("%s cannot be read (%s); the training begins anew", last, err)
        return None


def _has_ended(checkpoint: dict[str, Any] | None, max_epochs: int, patience: int | None) -> bool:
    """Say whether the training whose last epoch this is would not go on to another one."""
    if checkpoint is None:
        return False
    if int(checkpoint["epoch"]) + 1 >= max_epochs:
        return True
    states = [s for name, s in checkpoint["callbacks"].items() if name.startswith("EarlyStopping")]
    return patience is not None and any(int(state["wait_count"]) >= patience for state in states)


def _keepers(folder: Path, patience: int | None, validated: bool) -> list[pl.Callback]:
    """Keep the last epoch and, where there is a validation loss, the best; stop without progress.

    The last is kept last, when what stops and what is best are settled for its epoch.
    """
    kept: list[pl.Callback] = []
    if patience is not None:
        kept.append(EarlyStopping("val/loss", mode="min", patience=patience))
    keep = partial(MovableCheckpoint, folder, enable_version_counter=False)
    if validated:
        kept.append(keep(filename=Path(_BEST).stem, monitor="val/loss", mode="min"))
    kept.append(keep(filename=Path(_LAST).stem))
    return kept


def _trainer(
    folder: Path,
    accelerator: str,
    device: int,
    precision: SettledPrecision,
    shown: bool,
    callbacks: Sequence[pl.Callback] = (),
    *,
    max_epochs: int | None = None,
    num_sanity_val_steps: int | None = None,
    limit_val_batches: int | None = None,
) -> pl.Trainer:
    try:
        made = pl.Trainer(
            accelerator=accelerator,
            devices=[device] if device_kind(accelerator) == "cuda" else 1,
            precision=precision,
            max_epochs=max_epochs,
            num_sanity_val_steps=num_sanity_val_steps,
            limit_val_batches=limit_val_batches,
            logger=False,
            enable_checkpointing=bool(callbacks),
            enable_model_summary=False,
            # the data modules of dfl deal images to processes themselves
            use_distributed_sampler=False,
            default_root_dir=folder,
            # in a job of SLURM, Lightning would keep what it was at and have the job start again,
            # which goes on at the last epoch in any case, with the same result
            plugins=LightningEnvironment(),
            callbacks=[ThroughputBar(refresh_rate=10 if shown else 0), EndWhenAsked(), *callbacks],
        )
    except ValueError as err:
        raise ConfigError(str(err)) from err
    save_whole(made)
    return made


class _EpochSeed(pl.Callback):
    """Seed each epoch by its number, so that a resumed one draws what it would have drawn."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if batch_idx:
            return
        # not in on_train_epoch_start: a new iterator of a loader draws a random number, after that
        # hook in a run that goes through, but before it in one that is resumed
        numbers = f"{self.seed}:{trainer.current_epoch}:{trainer.global_rank}"
        digest = hashlib.blake2b(numbers.encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)


def _plain(value: object) -> Plain:
    """Reduce to plain data; what is none of it stands as its name, for addresses would differ."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _name(value if hasattr(value, "__qualname__") else type(value))


def _name(value: object) -> str:
    if isinstance(value, type):
        return public_name(value)
    return f"{value.__module__}.{getattr(value, '__qualname__', '')}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out all that Lightning reports on the way; a study trains many networks."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with quiet_lightning(), warnings.catch_warnings():
            # it is the folder of this very training
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
            yield
    finally:
        log.setLevel(level)
