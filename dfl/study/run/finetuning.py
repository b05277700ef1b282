"""A study's baseline: a network fine-tuned end to end on one table of images, scoring another."""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray

from dfl.app.quiet import quiet_lightning
from dfl.backbones.precision import SettledPrecision
from dfl.data import Augmentation, ImageDataModule, Manifest
from dfl.errors import CheckpointError, ConfigError
from dfl.files import checksum_of, writing
from dfl.heads.storage.checkpoint import read_checkpoint
from dfl.heads.storage.movable_checkpoint import MovableCheckpoint, save_whole
from dfl.heads.tasks.finetune import FineTuneTask
from dfl.recipe import Plain, Recipe, describe, public_name
from dfl.report.progress import ThroughputBar

__all__ = ["fine_tune", "training_settings"]

logger = logging.getLogger(__name__)

_SETTINGS = "training.json"
_FINISHED = "finished.json"
_LAST = "last.ckpt"
_BEST = "best.ckpt"


def fine_tune(
    task: FineTuneTask,
    train: Manifest,
    score: Manifest,
    *,
    data: ImageDataModule,
    folder: Path,
    max_epochs: int,
    patience: int | None,
    seed: int,
    eval_transforms: Sequence[Augmentation] = (),
    accelerator: str = "auto",
    devices: int | str = "auto",
    precision: SettledPrecision = "32-true",
) -> NDArray[np.float64]:
    """Fine-tune a network on some images and score others with its best checkpoint.

    The folder keeps the training: an interrupted one goes on at its last finished epoch and ends as
    it would have, and a finished one is not repeated, so that further tables and perturbations only
    cost their scores. Weights, order and augmentations follow from the seed; the random state of
    the caller is left as it was.

    Args:
        task: What is trained: its arguments, not its weights, which stay as they are.
        train: Images to learn from. Rows of the split ``train`` are learnt; the loss of the split
            ``val`` chooses the best epoch, or the last one is taken where there is none.
        score: Images to score, all rows, whatever their split.
        data: How images are seen: crops and augmentations, batches, workers.
        folder: Where the training is kept, one folder for each. It is checked that it is of the
            same images and settings.
        max_epochs: Epochs at most; more than in a finished training go on with it.
        patience: Epochs without a better validation loss after which it ends; None never does.
        seed: The seed of the training.
        eval_transforms: What the scored images go through after ``data.eval_transforms``.
        accelerator: Lightning's accelerator.
        devices: Number of devices, or auto. With several, each process scores all rows.
        precision: Numeric precision.

    Returns:
        A score for every row of ``score``, in its order; higher = fake.

    Raises:
        ConfigError: If the folder is of another training, or a setting cannot be carried out.
        BackboneError: If the network cannot be built or its weights do not fit.
        DataError: If there is no training image, or one cannot be read.
    """
    trainer = partial(
        _trainer, folder, accelerator=accelerator, devices=devices, precision=precision
    )
    images = data.of(train, seed=seed)
    _check_folder(folder, task, images)
    with _quiet(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        best = _train(
            task, images, folder, trainer, max_epochs=max_epochs, patience=patience, seed=seed
        )
        return _score(task, score, data, [*data.eval_transforms, *eval_transforms], best, trainer())


def training_settings(task: FineTuneTask) -> Recipe:
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
        "architecture": task.architecture(),
        "weights": None if task.weights is None else checksum_of(task.weights),
        "pretrained": task.pretrained,
        "optimizer": {"class": _name(type(optimizer)), "settings": _plain(optimizer.defaults)},
        "lr_scheduler": None
        if scheduler is None
        else {"class": _name(type(scheduler)), "settings": _plain(scheduler.state_dict())},
    }


def _train(
    task: FineTuneTask,
    images: ImageDataModule,
    folder: Path,
    trainer: Callable[..., pl.Trainer],
    *,
    max_epochs: int,
    patience: int | None,
    seed: int,
) -> Path:
    """Train until it is finished, unless it is; return the checkpoint to score with."""
    validated = bool((images.manifest.frame["split"] == "val").any())
    best, last = folder / (_BEST if validated else _LAST), folder / _LAST
    asked = {"max_epochs": max_epochs, "patience": patience}
    finished = folder / _FINISHED
    if finished.exists() and json.loads(finished.read_text()) == asked and best.exists():
        return best
    state = _read(last)
    resumes = state is not None
    if best.exists() and _has_ended(state, max_epochs, patience if validated else None):
        _note_finished(finished, asked)  # it was killed before it could
        return best
    fresh = task.untrained(pretrained=False) if resumes else task.untrained()
    callbacks = [_EpochSeed(seed), *_keepers(folder, patience if validated else None, validated)]
    limit = {} if validated else {"limit_val_batches": 0}
    made = trainer(callbacks, max_epochs=max_epochs, num_sanity_val_steps=0, **limit)
    torch.manual_seed(seed)
    made.fit(fresh, datamodule=images, ckpt_path=last if resumes else None)
    if made.interrupted:
        raise KeyboardInterrupt  # Lightning ends quietly, and the training is not finished
    if made.is_global_zero:
        _note_finished(finished, asked)
    return best


def _note_finished(file: Path, asked: Mapping[str, int | None]) -> None:
    with writing(file) as partial_file:
        partial_file.write_text(json.dumps(asked))


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


def _score(
    task: FineTuneTask,
    score: Manifest,
    data: ImageDataModule,
    eval_transforms: Sequence[Augmentation],
    checkpoint: Path,
    trainer: pl.Trainer,
) -> NDArray[np.float64]:
    # an image that serves several datasets is scored once
    once = score.frame.drop_duplicates("path").reset_index(drop=True)
    images = data.of(Manifest(once, score.root), eval_transforms=eval_transforms)
    scored = task.untrained(pretrained=False)
    trainer.predict(scored, datamodule=images, ckpt_path=checkpoint, return_predictions=False)
    by_path = scored.scores.set_index("path")["score"]
    return by_path.loc[score.frame["path"]].to_numpy(dtype=np.float64)


def _trainer(
    folder: Path,
    callbacks: Sequence[pl.Callback] = (),
    *,
    accelerator: str,
    devices: int | str,
    precision: SettledPrecision,
    max_epochs: int | None = None,
    num_sanity_val_steps: int | None = None,
    limit_val_batches: int | None = None,
) -> pl.Trainer:
    try:
        made = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
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
            callbacks=[ThroughputBar(), *callbacks],
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
        # not at the start of the epoch: a loader that begins draws a number after that, but where
        # a training goes on before
        numbers = f"{self.seed}:{trainer.current_epoch}:{trainer.global_rank}"
        digest = hashlib.blake2b(numbers.encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)


def _check_folder(folder: Path, task: FineTuneTask, images: ImageDataModule) -> None:
    """Refuse the folder of another training; say in a new one what it is of."""
    frame = images.manifest.frame[["path", "label", "split"]]
    rows = hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()
    settings = {
        **training_settings(task),
        "rows": rows,
        "condition": images.preprocess(),
        "train_crop": describe(images.train_crop),
        "train_transforms": describe(images.train_transforms),
        "batch_size": images.batch_size,
        "seed": images.seed,
    }
    text = json.dumps(settings, indent=2)
    file = folder / _SETTINGS
    if not file.exists():
        with writing(file) as partial_file:
            partial_file.write_text(text)
    elif json.loads(file.read_text()) != json.loads(text):
        raise ConfigError(
            f"{folder} holds a training of other images or settings ({_SETTINGS}); "
            "name another folder, or delete it"
        )


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
