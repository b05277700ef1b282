"""The command `score`: a stored head applied to another feature folder."""

from pathlib import Path

import pandas as pd

from dfl.errors import HeadError, ScoreError
from dfl.evaluation import metric_table, write_scores
from dfl.features.store import FeatureStore
from dfl.heads.storage.head_folder import load_head
from dfl.recipe import RANDOM_WEIGHTS, has_random_weights
from dfl.report.figures.terminal import print_metrics
from dfl.types import UNKNOWN, spec_difference


def score(features: Path, head: Path, *, out: Path, overwrite: bool = False) -> pd.DataFrame:
    """Score the images of a feature folder with a head that `dfl heads` has fitted.

    This is how a head is tested on other datasets than those that it was fitted on. All rows are
    scored, those of unknown label too; where labels are known, the metrics are printed.

    Args:
        features: Feature folder of the same backbones and layers; it may have further layers.
        head: Folder of the head, with head.skops and head.json.
        out: Score table to write, .csv or .parquet.
        overwrite: Replace the table if it is there already.

    Returns:
        The score table, in the order of the feature folder's manifest.

    Raises:
        FeatureError: If the feature folder cannot be read.
        HeadError: If the head cannot be read, or was fitted on other features.
        ScoreError: If the table is there already, or cannot be written.
    """
    if out.exists() and not overwrite:
        raise ScoreError(f"{out} is there already; pass --overwrite or choose another out")
    fitted = load_head(head)
    store = FeatureStore.open(features)
    if difference := spec_difference(fitted.spec, store.spec, subset=True):
        remedy = "extract these images with the backbones of the head"
        if has_random_weights(fitted.origin.backbones):
            remedy = f"{RANDOM_WEIGHTS}; fit it on features of weights that are kept"
        raise HeadError(f"{head} does not fit {features}: {difference}; {remedy}")
    rows = store.rows([layer.name for layer in fitted.spec])
    # a head of a study has its threshold from validation images; tables count from it
    scores = store.manifest.frame.assign(score=fitted.score_rows(rows) - fitted.threshold)
    write_scores(scores, out)
    if (scores["label"] != UNKNOWN).any():
        print_metrics(metric_table(scores), title=f"{head.name} on {features.name}")
    return scores
