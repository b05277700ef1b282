"""How configurations fare where generators and photographs are both new."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dfl.evaluation import METRICS
from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.ranking import Choice, Configuration, best_by_validation
from dfl.study.run.study import Study

COLUMNS = (
    *("features", "reduction", "head", "train_condition", "value", "low", "high"),
    *("worst_set", "worst", "fpr", "fpr_source", "tpr", "family", "val", "chosen"),
)


def matched_training_sets(study: Study) -> dict[str, str]:
    """List the training sets to which a matched dataset is new in both classes.

    Returns:
        The dataset by the name of the training set.
    """
    return {
        name: each.new for name, each in study.training_sets.items() if each.new in study.matched
    }


def choose_for_unseen(estimator: Estimator, new: Mapping[str, str]) -> Choice | None:
    """Choose the configuration for images of new generators among new photographs.

    Args:
        estimator: The results.
        new: As `matched_training_sets` gives it.

    Returns:
        The best by nested validation, judged on the datasets that were left out of all of it; None
        where there are no such datasets.
    """
    table = estimator.under_first_condition()
    table = table[table["train_set"].isin(new)]
    return best_by_validation(
        estimator,
        table[(table["split"] == "val") & (table["scope"] == "unseen")],
        tested_on_new(table[table["split"] == "test"], new),
        criterion="Best where generators and photographs are new",
        train_set=None,
        scope="dataset",
        why="highest mean of nested validation, on families and sources left out of what is "
        "trained on; tested on matched datasets of which nothing was used before: "
        + ", ".join(new.values()),
        units="name",
    )


def unseen_table(
    estimator: Estimator, new: Mapping[str, str], chosen: Configuration | None
) -> pd.DataFrame:
    """Rate every configuration on matched datasets that are new to it.

    Args:
        estimator: The results.
        new: As `matched_training_sets` gives it.
        chosen: The configuration that validation chose.

    Returns:
        A row a configuration, the best on validation first: what it is; ``value, low, high``, the
        mean of the primary metric over the matched datasets, whose interval resamples them as well;
        the dataset on which it is ``worst``; ``fpr`` and ``tpr``, at the threshold of validation,
        the share of photographs called fake of the new source where that is the largest, and
        the mean share of fakes caught; ``family``, the mean over families of generators that are
        new while photographs of their sources are known, whose sets are not matched; ``val``, the
        nested validation; and whether it was ``chosen``.
    """
    table = estimator.under_first_condition()
    sign = METRICS[estimator.metric].sign
    rows: list[dict[str, object]] = []
    for names, own in table.groupby([*Configuration._fields], sort=False):
        configuration = Configuration(*map(str, names))
        test, val = (own[own["split"] == split] for split in ("test", "val"))
        honest = tested_on_new(test, new)
        if honest.empty:
            continue
        by_set = honest.groupby("name", sort=False)[estimator.metric].mean()
        worst = str((sign * by_set).idxmin() if by_set.notna().any() else by_set.index[0])
        sources = test[test["scope"] == "source"].groupby("name")["fpr_at_val_threshold"].mean()
        families = test[(test["scope"] == "family") & ~test["train_set"].isin(new)]
        rated = val[(val["scope"] == "unseen") & val["train_set"].isin(new)][estimator.metric]
        rows.append(
            {name: getattr(configuration, name) for name in COLUMNS[:4]}
            | estimator.mean_over(honest, "name").columns
            | {
                "worst_set": worst,
                "worst": by_set[worst],
                "fpr": sources.max() if len(sources) else np.nan,
                "fpr_source": sources.idxmax() if sources.notna().any() else "",
                "tpr": honest["tpr_at_val_threshold"].mean(),
                "family": families.groupby("name")[estimator.metric].mean().mean(),
                "val": rated.mean(),
                "chosen": configuration == chosen,
            }
        )
    found = pd.DataFrame(rows, columns=[*COLUMNS])
    return found.sort_values("val", ascending=sign < 0, kind="stable", ignore_index=True)


def tested_on_new(test: pd.DataFrame, new: Mapping[str, str]) -> pd.DataFrame:
    """Keep the rows of the results table of datasets that are new to what was tested.

    Args:
        test: Rows of the test split.
        new: The dataset by the name of the training set.
    """
    wanted = test["train_set"].map(new)
    kept: pd.DataFrame = test[(test["scope"] == "dataset") & (test["name"] == wanted)]
    return kept
