"""Checkpoints that are whole or not there, and that stay known where their folder was moved."""

from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from dfl.files import writing
from dfl.heads.storage.checkpoint import read_checkpoint


class WholeCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place, then rename it.

    Lightning's own writes to the folder of temporary files, which may be another disk; then it is
    copied over the checkpoint that is there, and who is killed meanwhile has neither.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401  # Lightning's
    ) -> None:
        """Save a checkpoint; where `path` is a URL, as Lightning does."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with writing(Path(path)) as partial:
            torch.save(checkpoint, partial)


def save_whole(trainer: pl.Trainer) -> None:
    """Let a trainer write its checkpoints so, unless its strategy or its user has a way of its own.

    Args:
        trainer: The trainer, not started yet.
    """
    strategy = trainer.strategy
    is_usual = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
    if is_usual and type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = WholeCheckpointIO()


class MovableCheckpoint(ModelCheckpoint):
    """Keep what was the best in its folder, wherever the folder is now."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the checkpoints for those of the same names in this callback's folder."""
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        moved = {
            "dirpath": self.dirpath,
            "best_k_models": {here(p): v for p, v in state_dict["best_k_models"].items()},
        }
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved |= {name: here(state_dict[name]) for name in paths}
        super().load_state_dict(state_dict | moved)


def earlier_best(checkpoint: Path, callback: ModelCheckpoint) -> tuple[Path, float] | None:
    """Look for a better checkpoint than a resumed fit has found, in the run that it went on with.

    Args:
        checkpoint: Where the fit went on.
        callback: What kept the best of the epochs since then.

    Returns:
        The checkpoint and its value of what is monitored; None if there is none that is better.
    """
    states = cast(dict[str, Any], read_checkpoint(checkpoint).get("callbacks", {}))
    for state in states.values():
        if not isinstance(state, dict) or state.get("monitor") != callback.monitor:
            continue
        score, path = state.get("best_model_score"), Path(str(state.get("best_model_path", "")))
        if score is None or callback.best_model_score is None or not path.is_file():
            continue
        sign = 1 if callback.mode == "min" else -1
        if sign * float(score) < sign * float(callback.best_model_score):
            return path, float(score)
    return None
