"""Where the files of a run go: the folder that also holds its checkpoints."""

from pathlib import Path

from lightning.pytorch import Trainer


def run_dir(trainer: Trainer) -> Path:
    """Name the run's folder, as the process with rank 0 knows it.

    It is ``save_dir/name/version`` of the first logger, the rule by which Lightning places
    checkpoints. ``trainer.log_dir`` is not it: with W&B that is the folder of all runs.

    Args:
        trainer: A trainer whose loggers have started, which is so from ``setup`` on.

    Returns:
        The folder, which may not exist yet; ``default_root_dir`` without a logger. Other ranks may
        get another version than rank 0.
    """
    root = Path(trainer.default_root_dir)
    if not trainer.loggers:
        return root
    first = trainer.loggers[0]
    version = first.version if isinstance(first.version, str) else f"version_{first.version}"
    save_dir = Path(first.save_dir) if first.save_dir is not None else root
    return save_dir / str(first.name) / version
