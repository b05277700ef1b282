"""What a study found: the best configurations, rankings, and who generalises to what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import pandas as pd

from dfl.evaluation import METRICS
from dfl.study.analysis.estimates import Estimate, Estimator
from dfl.study.analysis.judge import cell_axes
from dfl.study.design.grid import Cell
from dfl.study.design.training_sets import COMBINED

_TEST_SETS: Final = {"dataset": "{}", "generator": "generator {}"}
_SPLITS: Final = ("val", "test")
_TIE_BREAKERS: Final = ("auroc", "ap", "calibration_error")


class Configuration(NamedTuple):
    """What a person can choose; training set, test set and seed are what it is tried on."""

    grid: str
    features: str
    reduction: str
    head: str
    train_condition: str

    @classmethod
    def of(cls, cell: Cell) -> "Configuration":
        """Give that of a cell."""
        axes = cell_axes(cell)
        return cls(*(str(axes[name]) for name in cls._fields))

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Keep its rows of the results table."""
        return table[(table[[*self._fields]] == pd.Series(self._asdict())).all(axis=1)]

    def words(self, first_condition: str) -> str:
        """Name it; no reduction, and being trained under the first condition, go without saying."""
        reduction = [] if self.reduction == "none" else [self.reduction]
        usual = self.train_condition == first_condition
        condition = [] if usual else [f"trained on {self.train_condition}"]
        return " \u00b7 ".join([self.features, *reduction, self.head, *condition])


_CONFIGURATION: Final = [*Configuration._fields]  # as pandas groups by it


@dataclass(frozen=True)
class Choice:
    """A configuration that validation chose.

    Attributes:
        criterion: What it is the best at.
        configuration: The configuration.
        train_set: What it was trained on; None for every training set in turn.
        scope: The scope of the results table that it is judged by.
        val: The primary metric on validation images.
        test: The same on test images.
        why: The reason, in a sentence.
    """

    criterion: str
    configuration: Configuration
    train_set: str | None
    scope: str
    val: float
    test: Estimate
    why: str


def choose_train_set(estimator: Estimator, train_sets: Sequence[str]) -> str:
    """Choose the training set of the detector to take home.

    Args:
        estimator: The results.
        train_sets: The names of the training sets.

    Returns:
        All datasets combined, where that is among them; else the training set of the
        configuration with the best mean over the datasets on validation images.
    """
    if COMBINED in train_sets:
        return COMBINED
    table, metric = estimator.table, METRICS[estimator.metric]
    rows = table[(table["scope"] == "macro") & (table["split"] == "val")]
    rows = rows.dropna(subset=[metric.name])
    if rows.empty:  # validation has one class, of which this metric says nothing
        return train_sets[0]
    best = (metric.sign * rows[metric.name]).groupby(rows["train_set"], sort=False).max()
    return str(best.idxmax())


def choose(estimator: Estimator, *, train_set: str) -> list[Choice]:
    """Choose the best configurations by their validation images.

    Args:
        estimator: The results.
        train_set: The training set of the detector to take home.

    Returns:
        The best on the datasets that it is trained on, and the best on datasets that it is not
        trained on, where there are such.
    """
    table = estimator.under_first_condition()
    own = table[table["train_set"] == train_set]
    # nested validation is of images to which the head was new, whatever dataset they are in
    nested = bool(((own["scope"] == "fold") & (own["split"] == "val")).any())
    found = [
        best_by_validation(
            estimator,
            own[(own["split"] == "val") & (own["scope"] == ("unseen" if nested else "macro"))],
            own[(own["split"] == "test") & (own["scope"] == "macro")],
            criterion="Best detector to take home",
            train_set=train_set,
            scope="macro",
            why=(
                "highest mean of nested validation, on families and sources that are left out, "
                if nested
                else "highest mean over the datasets on validation images, "
            )
            + "trained on "
            + ("all datasets" if train_set == COMBINED else train_set),
        ),
        best_by_validation(
            estimator,
            *(table[(table["split"] == split) & (table["scope"] == "unseen")] for split in _SPLITS),
            criterion="Best on datasets that it was not trained on",
            train_set=None,
            scope="unseen",
            why="highest mean on the validation images of datasets that it was not trained on, "
            "over all training sets",
        ),
    ]
    return [choice for choice in found if choice is not None]


def best_by_validation(
    estimator: Estimator,
    val: pd.DataFrame,
    test: pd.DataFrame,
    *,
    criterion: str,
    train_set: str | None,
    scope: str,
    why: str,
    units: str = "",
) -> Choice | None:
    """Choose the configuration with the highest mean over validation rows.

    Args:
        estimator: The results.
        val: Rows of the results table that decide.
        test: Rows that tell how good what was chosen is.
        criterion: What it is the best at.
        train_set: As in `Choice`.
        scope: As in `Choice`.
        why: The reason, to which is added that others are as good.
        units: The column of what is resampled beside groups of images and seeds, if anything.

    Returns:
        The choice; None where no configuration has a number on validation.
    """
    means = _validated(_complete(val), estimator.metric)
    if means.empty:
        return None
    best = _by_merit(means)[0]
    ties = int((means[estimator.metric] == means[estimator.metric][best]).sum()) - 1
    if ties:
        why += (
            f"; {ties} other{'s are' if ties > 1 else ' is'} equally good there, so that AUROC, "
            "average precision and calibration decide"
        )
    value = float(means[estimator.metric][best])
    rows = best.rows(test)
    mean = estimator.mean_over(rows, units) if units else estimator.mean(rows)
    return Choice(criterion, best, train_set, scope, value, mean, why)


def _complete(rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out configurations that lack a training set or a seed, as a cell failed.

    Their means would be over other cells than those of the rest.
    """
    count = rows.groupby(_CONFIGURATION, sort=False)["train_set"].transform("size")
    complete: pd.DataFrame = rows[count == count.max()]
    return complete


def _validated(val: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Average what decides over validation rows, by configuration; without those it cannot rate."""
    metrics = list(dict.fromkeys([metric, *_TIE_BREAKERS]))
    means = val.groupby(_CONFIGURATION, sort=False)[metrics].mean().round(9)
    return means.dropna(subset=[metric])


def _by_merit(means: pd.DataFrame) -> list[Configuration]:
    """Order rows, the best first, column after column; of equals the one with fewer parts first."""
    merit = means.copy()
    for name in merit.columns:
        if METRICS[name].lower_is_better:
            merit[name] = 1 - merit[name]
    merit = merit.fillna(0.0)
    configurations = [Configuration(*each) for each in merit.index]
    merit["parts"] = [-each.features.count("+") for each in configurations]
    merit["plain"] = [each.reduction == "none" for each in configurations]
    ranked = merit.sort_values(list(merit.columns), ascending=False, kind="stable")
    return [Configuration(*each) for each in ranked.index]


def leaders(estimator: Estimator, *, train_set: str) -> pd.DataFrame:
    """Rank the configurations trained on one training set, by the mean over the datasets.

    Those that failed for a seed are left out: another mean would be of other test images.

    Args:
        estimator: The results.
        train_set: The training set.

    Returns:
        ``features, reduction, head, kind, value, low, high, val``, best first; ``kind`` is
        the grid; ``configuration``, and ``val_rank``, its place by validation alone, from 0, where
        ties are broken as `choose` breaks them.
    """
    table = estimator.under_first_condition()
    table = _complete(table[(table["train_set"] == train_set) & (table["scope"] == "macro")])
    means = _validated(table[table["split"] == "val"], estimator.metric)
    rank = {configuration: place for place, configuration in enumerate(_by_merit(means))}
    rows = []
    for names, own in table.groupby(_CONFIGURATION, sort=False):
        configuration = Configuration(*map(str, names))
        condition = configuration.train_condition
        usual = condition == estimator.first_condition
        rows.append(
            {
                "features": configuration.features,
                "reduction": configuration.reduction,
                "head": configuration.head + ("" if usual else f" (trained on {condition})"),
                "kind": configuration.grid,
                **estimator.mean(own[own["split"] == "test"]).columns,
                "val": means[estimator.metric].get(names, float("nan")),
                "val_rank": rank.get(configuration, len(rank)),
                "configuration": configuration,
            }
        )
    columns = ["features", "reduction", "head", "kind", "value", "low", "high", "val"]
    ranked = pd.DataFrame(rows, columns=[*columns, "val_rank", "configuration"])
    return ranked.sort_values(
        "value",
        ascending=METRICS[estimator.metric].lower_is_better,
        kind="stable",
        ignore_index=True,
    )


def models(ranked: pd.DataFrame) -> pd.DataFrame:
    """Compare sets of features, and whole networks, each with every head.

    Args:
        ranked: What `leaders` returns: configurations trained on one training set.

    Returns:
        ``features, head, value, low, high, chosen``: of several reductions the one that
        validation chose; ``chosen`` marks the head that it chose for these features.
    """
    by_val = ranked.sort_values("val_rank", kind="stable")
    kept = by_val.drop_duplicates(["features", "head"])
    kept = kept.assign(chosen=~kept["features"].duplicated()).sort_index()
    columns = ["features", "head", "value", "low", "high", "chosen"]
    return kept[columns].reset_index(drop=True)


def matrix(
    estimator: Estimator, configuration: Configuration, *, by_generator: bool
) -> pd.DataFrame:
    """Set what a configuration was trained on against what it was tested on.

    Args:
        estimator: The results.
        configuration: The configuration.
        by_generator: Whether to set it against each generator as well, which says more where a
            dataset has several.

    Returns:
        ``train_set, test_set, value, low, high``; the datasets, the generators, then
        pooled, macro and worst.
    """
    table = configuration.rows(estimator.under_first_condition())
    table = table[table["split"] == "test"]
    rows = []
    for scope in ("dataset", *(["generator"] if by_generator else []), "pooled", "macro", "worst"):
        part = table[table["scope"] == scope]
        for (train_set, name), own in part.groupby(["train_set", "name"], sort=False):
            test_set = _TEST_SETS.get(scope, scope).format(name)
            rows.append(
                {"train_set": train_set, "test_set": test_set, **estimator.mean(own).columns}
            )
    return pd.DataFrame(rows, columns=["train_set", "test_set", "value", "low", "high"])
