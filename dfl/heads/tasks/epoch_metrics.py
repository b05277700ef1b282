"""The scalars that are logged at the end of a validation or test epoch."""

import pandas as pd

from dfl.evaluation import TABLE_METRICS, binary_metrics, image_sets, unique_images

__all__ = ["epoch_metrics"]

_TERMS_END = ("path", "dataset", "generator", "split", "label", "score")


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
    terms = [column for column in table if column not in _TERMS_END]
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
