"""How a callback gets at the scores of a task."""

from typing import Protocol, runtime_checkable

import pandas as pd
from lightning.pytorch import LightningModule

from dfl.errors import ConfigError


@runtime_checkable
class _Scored(Protocol):
    scores: pd.DataFrame


def task_scores(module: LightningModule, callback: str) -> pd.DataFrame:
    """Fetch the score table of the epoch that has just ended.

    Args:
        module: A task that keeps ``.scores``.
        callback: The name of who asks, for the error.

    Returns:
        The table itself, not a copy.

    Raises:
        ConfigError: If the module keeps no scores.
    """
    if not isinstance(module, _Scored):
        raise ConfigError(
            f"{callback} needs a task that keeps a table .scores, and {type(module).__name__} "
            f"does not; take {callback} out of trainer.callbacks"
        )
    return module.scores
