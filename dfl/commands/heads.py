"""The command `heads`: a feature folder in, fitted sklearn heads out."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline

from dfl.errors import HeadError
from dfl.evaluation import SCORE_COLUMNS, known_rows, metric_table, write_scores
from dfl.features.store import FeatureStore
from dfl.heads.estimators.provenance import provenance_of, takes_provenance, unsaid
from dfl.heads.estimators.reductions import reduced
from dfl.heads.out_of_core.fit import OutOfCore, is_streamed
from dfl.heads.out_of_core.stream import Stream
from dfl.heads.storage.head_folder import (
    SCORES,
    check_replaceable,
    class_counts,
    writing_head,
)
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.progress import progress
from dfl.report.figures.terminal import print_comparison

logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TITLES: Final = {"train": "Training images", "val": "Validation images", "test": "Test images"}


def heads(
    features: Path,
    out: Path,
    *,
    heads: dict[str, Pipeline],
    reduction: Pipeline | None = None,
    layers: list[str] | None = None,
    out_of_core: OutOfCore = "auto",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Fit sklearn heads on a feature folder, score its images, and compare the heads.

    Each head is fitted on the images of the training split, each image once even where it serves
    several dataset pairs. It then scores all images of known label. OUT/NAME holds the head
    (head.skops, head.json) and its score table (scores.csv), from which `dfl evaluate` makes
    metrics; `dfl score` applies the head to another feature folder.

    Ten heads are in configs/head/all.yaml: dfl heads --config configs/head/all.yaml --features
    FEATURES --out OUT. A setting is changed by --heads.NAME.SETTING, as in --heads.svm.C=10.

    Args:
        features: Feature folder that `dfl extract` made.
        out: Folder in which each head gets a folder of its own name.
        heads: Heads to fit, by name: class_path is a function of dfl.heads.estimators,
            init_args its settings.
        reduction: What goes between features and heads, in place of their own scaling: class_path
            is pca, autoencoder or bottleneck, as in dfl.heads.estimators.pca.
        layers: Layers to use, such as clip.pooled, or clip for all of its layers; all by default.
        out_of_core: Whether to fit in passes over the feature files rather than on a matrix in
            memory; auto does so above 64 MiB of training features where it needs less memory (and
            replaces rbf_svm above 30,000 training images by Nystroem's approximation). Linear
            heads then reach the optimum of scikit-learn's objective, before which scikit-learn
            stops at its own default tolerance. Trees and knn cannot.
        overwrite: Replace heads that are there already.

    Returns:
        The rows of ``dfl.evaluation.metric_table`` for each head and split, with columns ``head``
        and ``split`` before them.

    Raises:
        FeatureError: If the folder cannot be read or has no such layer.
        HeadError: If a head cannot be fitted, or would replace what is there; nothing is fitted
            where the latter can be seen beforehand.
    """
    _check_names(heads)
    store = FeatureStore.open(features)
    spec = store.select(layers)
    origin = store.origin(layers)
    planned = {
        name: SklearnHead(reduced(pipeline, reduction), spec, origin)
        for name, pipeline in heads.items()
    }
    for name, head in planned.items():
        check_replaceable(out / name, head, overwrite=overwrite)
    table = known_rows(store.manifest.frame)
    train = _training_rows(table, features)
    label = table["label"].to_numpy(dtype=np.int64)[train]
    rows = store.rows(layers, table.index.to_numpy())
    chosen = rows.chosen(train)
    streamed = {
        name: is_streamed(head.pipeline, *chosen.shape, out_of_core=out_of_core)
        for name, head in planned.items()
    }
    provenance = provenance_of(table).iloc[train]
    wanting = [name for name, head in planned.items() if takes_provenance([head.pipeline])]
    if wanting and (line := unsaid(table.iloc[train])):
        logger.warning("%s: %s (columns of the manifest)", ", ".join(wanting), line)
    stream = Stream(chosen, label)  # one for all heads: they share its passes
    # plain arrays: an estimator that keeps its input must not keep a map of the feature file
    matrix = None if all(streamed.values()) else chosen.read()
    counts = class_counts(label)
    results: dict[str, pd.DataFrame] = {}
    with progress("fit heads", len(planned)) as bar:
        for name in planned:
            bar.set_description(f"fit {name}")
            if streamed[name] or matrix is None:
                head = planned[name].fit_streamed(stream, scratch=out, provenance=provenance)
            else:
                head = planned[name].fit(matrix, label, provenance)
            results[name] = table.assign(score=head.score_rows(rows))
            with writing_head(head, out / name, counts=counts, overwrite=overwrite) as folder:
                write_scores(results[name], folder / SCORES)
            bar.update()
    return _report(results)


def _check_names(names: Iterable[str]) -> None:
    names = list(names)
    if not names:
        raise HeadError("no head to fit; give --heads or --config configs/head/all.yaml")
    for name in names:
        if not _NAME.fullmatch(name):
            raise HeadError(
                f"{name!r} cannot name a head's folder; use letters, digits, dots, _ and -"
            )


def _training_rows(table: pd.DataFrame, features: Path) -> npt.NDArray[np.int64]:
    train = (table["split"] == "train") & ~table.duplicated("path")
    if not train.any():
        found = ", ".join(repr(split) for split in sorted(table["split"].unique())) or "none"
        raise HeadError(
            f"{features}: no labelled image has the split 'train' (found: {found}); "
            "split the data before you extract its features"
        )
    return np.flatnonzero(train)


def _report(results: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Print the comparison on validation and test images, and return all metrics."""
    splits = next(iter(results.values()))["split"].unique()
    rows: list[pd.DataFrame] = []
    shown = [split for split in ("val", "test") if split in splits] or ["train"]
    for split in (name for name in ("train", "val", "test", "") if name in splits):
        tables = {
            name: metric_table(scores[[*SCORE_COLUMNS]][scores["split"] == split])
            for name, scores in results.items()
        }
        if split in shown:
            print_comparison(tables, first="Head", title=_TITLES[split])
        for name, table in tables.items():
            table.insert(0, "head", name)
            table.insert(1, "split", split)
            rows.append(table)
    return pd.concat(rows, ignore_index=True)
