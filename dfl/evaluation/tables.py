"""The results table: metrics per dataset pair and per generator, and what sums them up."""

import logging
from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from dfl.evaluation.metrics import METRICS, TABLE_METRICS, binary_metrics
from dfl.types import FAKE, REAL, UNKNOWN

METRIC_TABLE_COLUMNS: Final = ("scope", "name", "n_real", "n_fake", *TABLE_METRICS)

_COUNTED: Final = ("path", "dataset", "generator", "label", "score")

logger = logging.getLogger(__name__)


def metric_table(scores: pd.DataFrame, *, threshold: float = 0.0) -> pd.DataFrame:
    """Compute every row of the results table.

    The scopes, in the order of the rows:

    - ``dataset``: one dataset pair, in the order of the score table.
    - ``generator``: the fakes of one generator against the reals of the pairs in which it occurs.
    - ``pooled``: all images, each once, although a real set may serve several pairs.
    - ``macro``: the mean over the dataset rows.
    - ``worst``: column by column the worst dataset row (the lowest; of an error the highest), so
      its columns may come from different datasets.

    A set of one class has nan where a metric needs two; ``macro`` and ``worst`` pass over such nan.

    Args:
        scores: A score table; rows of unknown label are left out, and their count is logged.
        threshold: A score above it says fake.

    Returns:
        Tidy rows with ``METRIC_TABLE_COLUMNS``: metrics in [0, 1] or nan, counts int64. The counts
        of ``macro`` and ``worst`` are those of ``pooled``. No rows but these three, with counts 0
        and nan, when no label is known. ``.attrs`` holds the ``threshold``, and as ``n_unknown``
        how many rows were left out.
    """
    known = known_rows(scores[[*_COUNTED]])  # no copies of other columns
    known = known.assign(
        path=pd.factorize(known["path"])[0]
    )  # which are the same is all that counts
    n_unknown = len(scores) - len(known)
    if n_unknown:
        logger.info("%d of %d scores have no label and enter no metric", n_unknown, len(scores))
    rows = [
        {"scope": scope, "name": name}
        | binary_metrics(own["score"], own["label"], threshold=threshold)
        for scope, name, own in image_sets(known)
    ]
    table = pd.DataFrame(rows)[[*METRIC_TABLE_COLUMNS]]
    table = pd.concat([table, _summary(table)], ignore_index=True)
    table = table.astype(
        {"n_real": "int64", "n_fake": "int64"} | dict.fromkeys(TABLE_METRICS, "float64")
    )
    table.attrs |= {"n_unknown": n_unknown, "threshold": threshold}
    return table


def known_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows whose label is real or fake."""
    return scores[scores["label"] != UNKNOWN]


def unique_images(scores: pd.DataFrame) -> pd.DataFrame:
    """Keep one row an image: a real set that serves two pairs has a row in each."""
    again = scores.duplicated(["path", "label"])
    return scores[~again] if again.any() else scores


def image_sets(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Divide a table into the sets of images that metrics are computed on.

    Args:
        table: Rows with at least path, dataset, generator and label.

    Yields:
        Scope, name and rows of each set: every ``dataset``; for every ``generator`` its fakes
        against the real images of the datasets in which it occurs; and ``pooled``, all images.
        Datasets and generators come in the order in which they occur, and within a generator, and
        among all, each image counts once.
    """
    for name in table["dataset"].unique():
        yield "dataset", name, table[table["dataset"] == name]
    real, fake = ((table["label"] == label).to_numpy() for label in (REAL, FAKE))
    for name in table["generator"][fake].unique():
        made = fake & (table["generator"] == name).to_numpy()
        against = real & table["dataset"].isin(table["dataset"][made].unique()).to_numpy()
        rows = np.append(np.flatnonzero(against), np.flatnonzero(made))
        yield "generator", name, unique_images(table.iloc[rows])
    yield "pooled", "all images", unique_images(table)


def most_wrong(scores: pd.DataFrame, count: int, *, threshold: float = 0.0) -> pd.DataFrame:
    """Pick the images that lie furthest on the wrong side of the threshold.

    Args:
        scores: A score table; rows of unknown label are left out, and each image counts once.
        count: How many images at most. Where fewer are wrong, the nearest misses follow.
        threshold: A score above it says fake.

    Returns:
        Rows of the score table, the most wrong first, with a column ``margin``: the distance of the
        score from the threshold, negative where the verdict is wrong.
    """
    images = unique_images(known_rows(scores))
    side = images["label"].map({REAL: -1.0, FAKE: 1.0})
    ranked = images.assign(margin=(images["score"] - threshold) * side)
    return ranked.sort_values("margin", kind="stable").head(count).reset_index(drop=True)


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Sum the datasets up: their mean, and the worst; the counts are those of all images."""
    pooled = table.iloc[-1].to_dict()
    values = table.loc[table["scope"] == "dataset", [*TABLE_METRICS]]
    signs = pd.Series({name: METRICS[name].sign for name in TABLE_METRICS})
    return pd.DataFrame(
        [
            pooled | {"scope": "macro", "name": "mean of datasets"} | values.mean().to_dict(),
            pooled
            | {"scope": "worst", "name": "worst dataset"}
            | ((values * signs).min() * signs).to_dict(),
        ]
    )
