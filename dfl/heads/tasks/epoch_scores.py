"""The scores of an epoch: gathered from all batches and all processes, and what is logged."""

import pandas as pd
import torch
from torch import Tensor

from dfl.evaluation import SCORE_COLUMNS, TABLE_METRICS, binary_metrics, image_sets, unique_images
from dfl.processes import gathered
from dfl.types import Batch


class ScoreCollector:
    """Collect scores batch by batch; every process ends with the whole table, in order."""

    def __init__(self) -> None:
        self._batches: list[tuple[dict[str, list[str]], dict[str, Tensor]]] = []

    def add(self, batch: Batch, split: str, values: dict[str, Tensor]) -> None:
        """Keep what was computed for a batch, where it is: a copy would wait for the device.

        Args:
            batch: The batch; samples repeated for padding are dropped.
            split: What the ``split`` column says.
            values: Further columns, each of shape ``(B,)``.
        """
        said: dict[str, list[str]] = {
            "path": batch["path"],
            "dataset": batch["dataset"],
            "generator": batch["generator"],
            "split": [split] * len(batch["path"]),
        }
        kept = {"index": batch["index"], "label": batch["label"], **values}
        self._batches.append((said, {name: value.detach() for name, value in kept.items()}))

    def gather(self) -> pd.DataFrame:
        """Join the batches of all processes, and begin anew.

        Returns:
            The table, one row a manifest row that was seen, without the index.
        """
        mine = pd.DataFrame(self._columns())
        self._batches.clear()
        mine = mine[mine["index"] >= 0] if len(mine) else mine
        table = pd.concat([part for part in gathered(mine) if len(part)] or [mine])
        if table.empty:
            return table
        return table.sort_values("index", ignore_index=True).drop(columns="index")

    def _columns(self) -> dict[str, list[object]]:
        """Join the batches of this process; the device is waited for once a column."""
        if not self._batches:
            return {}
        said, kept = zip(*self._batches, strict=True)
        columns: dict[str, list[object]] = {
            name: [each for batch in said for each in batch[name]] for name in said[0]
        }
        for name in kept[0]:
            value = torch.cat([batch[name] for batch in kept]).cpu()
            columns[name] = (value.double() if value.is_floating_point() else value).tolist()
        return columns


def epoch_metrics(table: pd.DataFrame, split: str) -> dict[str, float]:
    """Compute what is logged for an epoch.

    Args:
        table: A score table with one column more for every term of the loss.
        split: ``val`` or ``test``; the first half of every name.

    Returns:
        ``<split>/<term>`` for the means of the loss and its terms and ``<split>/<metric>``, over
        all images, each once, ``<split>/<dataset>/<metric>`` and, for test,
        ``<split>/generator/<generator>/<metric>``. Metrics that cannot be computed, as the AUROC of
        one class, are left out.
    """
    if table.empty:
        return {}
    terms = [column for column in table if column not in SCORE_COLUMNS]
    images = unique_images(table)
    values = {f"{split}/{term}": float(images[term].mean()) for term in terms}
    if "score" not in table:
        return values
    for scope, name, rows in image_sets(table):
        if scope == "generator" and split != "test":
            continue
        group = {"dataset": f"{name}/", "generator": f"generator/{name}/", "pooled": ""}[scope]
        metrics = binary_metrics(rows["score"].to_numpy(), rows["label"].to_numpy())
        values |= {f"{split}/{group}{metric}": metrics[metric] for metric in TABLE_METRICS}
    return {name: value for name, value in values.items() if value == value}  # nan differs
