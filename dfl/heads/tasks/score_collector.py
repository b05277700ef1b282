"""Gathering the scores of an epoch, from all batches and all processes, into one table."""

import pandas as pd
import torch.distributed as dist
from torch import Tensor

from dfl.types import Batch

__all__ = ["ScoreCollector"]


class ScoreCollector:
    """Collect scores batch by batch; every process ends with the whole table, in order."""

    def __init__(self) -> None:
        self._batches: list[pd.DataFrame] = []

    def add(self, batch: Batch, split: str, values: dict[str, Tensor]) -> None:
        """Keep what was computed for a batch.

        Args:
            batch: The batch; samples repeated for padding are dropped.
            split: What the ``split`` column says.
            values: Further columns, each of shape ``(B,)``.
        """
        table = pd.DataFrame(
            {
                "index": batch["index"].tolist(),
                "path": batch["path"],
                "dataset": batch["dataset"],
                "generator": batch["generator"],
                "split": split,
                "label": batch["label"].tolist(),
                **{name: value.detach().cpu().double().tolist() for name, value in values.items()},
            }
        )
        self._batches.append(table[table["index"] >= 0])

    def gather(self) -> pd.DataFrame:
        """Join the batches of all processes, and begin anew.

        Returns:
            The table, one row a manifest row that was seen, without the index.
        """
        mine = pd.concat(self._batches, ignore_index=True) if self._batches else pd.DataFrame()
        self._batches.clear()
        parts = [mine]
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            parts = [mine] * dist.get_world_size()
            dist.all_gather_object(parts, mine)
        table = pd.concat([part for part in parts if len(part)] or [mine])
        if table.empty:
            return table
        return table.sort_values("index", ignore_index=True).drop(columns="index")
