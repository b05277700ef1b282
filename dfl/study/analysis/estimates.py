"""Means over the cells of a study, with intervals from the replicates that they share."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm, t

from dfl.evaluation import PairedDifference, paired_difference, percentile_interval
from dfl.study.analysis.judge import Results

Values = npt.NDArray[np.float64]
_SEEDS, _UNITS = 0, 1  # the random streams by which they are resampled


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        value: The mean.
        low: Lower end.
        high: Upper end.
        replicates: The mean in every bootstrap replicate, shape ``(B,)``.
        count: How many rows it is the mean of.
    """

    value: float
    low: float
    high: float
    replicates: Values
    count: int

    @classmethod
    def of(cls, value: float, replicates: Values, count: int = 1) -> "Estimate":
        """Make one from a value and its replicates, of a metric in [0, 1]."""
        # stretched for a few seeds, replicates reach beyond what a metric can be
        low, high = np.clip(percentile_interval(replicates), 0.0, 1.0)
        return cls(value, float(low), float(high), replicates, count)

    @property
    def columns(self) -> dict[str, object]:
        """The mean and its interval, as tables have them."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def minus(self, other: "Estimate", level: float = 0.95) -> PairedDifference:
        """Subtract another mean, replicate by replicate."""
        return paired_difference(self.value, other.value, self.replicates, other.replicates, level)


class Estimator:
    """Averages rows of the results table.

    Every replicate resamples the groups of images and, where there are several, the seeds, so that
    an interval covers both. All means share the replicates: differences are paired. Seeds differ in
    their test images too, which counts twice then: intervals over seeds are on the wide side.

    Args:
        results: The numbers of all cells.
        metric: The primary metric, whose replicates `results` holds.
        first_condition: The condition under which configurations are chosen and ranked.
    """

    def __init__(self, results: Results, metric: str, first_condition: str) -> None:
        self.table = results.table
        self.metric = metric
        self.first_condition = first_condition
        self._replicates = results.replicates
        tested = self.table.index[self.table["split"] == "test"]
        self._place = pd.Series(np.arange(len(tested)), index=tested)
        self.seeds = sorted(int(seed) for seed in self.table["seed"].unique())
        self._deviations = cache(self._draw)

    def under_first_condition(self) -> pd.DataFrame:
        """Keep the rows that were tested under the first condition; all if none was."""
        under = self.table["test_condition"] == self.first_condition
        return self.table.loc[under] if under.any() else self.table

    def mean(self, rows: pd.DataFrame) -> Estimate:
        """Average the primary metric over rows of the table, every seed alike.

        Args:
            rows: Rows of `table`, of the test split; those that are nan are passed over.

        Returns:
            The mean over seeds of the mean over a seed's rows.
        """
        known = rows[self.metric].notna().to_numpy()
        values = rows[self.metric].to_numpy(np.float64)[known]
        seeds = rows["seed"].to_numpy()[known]
        places = self._place[rows.index[known]].to_numpy()
        by_seed = {
            int(seed): (
                float(values[seeds == seed].mean()),
                _column_means(self._replicates[places[seeds == seed]].astype(np.float64)),
            )
            for seed in np.unique(seeds)
        }
        return self.over_seeds(by_seed, count=len(values))

    def mean_over(self, rows: pd.DataFrame, units: str) -> Estimate:
        """Average the primary metric over units that stand for more of their kind.

        Such as test sets that stand for sets that nobody has seen: they are resampled like seeds,
        since the spread between them is what another one would add.

        Args:
            rows: Rows of `table`, of the test split.
            units: The column that names the unit of each row.

        Returns:
            The mean over units of the mean over a unit's seeds and rows.
        """
        rows = rows[rows[self.metric].notna()]
        parts = {str(unit): self.mean(own) for unit, own in rows.groupby(units, sort=True)}
        if not parts:
            return self.over_seeds({})
        values = np.array([each.value for each in parts.values()])
        replicates = np.mean([each.replicates for each in parts.values()], axis=0)
        replicates = replicates + values @ self._deviations(len(values), _UNITS)
        return Estimate.of(float(values.mean()), replicates, len(rows))

    def over_seeds(self, by_seed: Mapping[int, tuple[float, Values]], count: int = 1) -> Estimate:
        """Average over seeds.

        Args:
            by_seed: A value and its replicates by seed.
            count: How many rows they stand for.

        Returns:
            The mean; nan without a seed.
        """
        if not by_seed:
            return Estimate.of(np.nan, np.full(self._replicates.shape[1], np.nan), count)
        ordered = [by_seed[seed] for seed in sorted(by_seed)]  # the same for all, so paired
        values = np.array([value for value, _ in ordered])
        # what seeds change is taken from their values: their replicates hold the images' noise,
        # which weights that are stretched would multiply
        replicates = np.mean([own for _, own in ordered], axis=0)
        replicates = replicates + values @ self._deviations(len(values), _SEEDS)
        return Estimate.of(float(values.mean()), replicates, count)

    def _draw(self, count: int, stream: int) -> Values:
        """Draw by how much units weigh more or less than alike; ``(count, B)``, columns sum to 0.

        A few units resampled vary less than new ones would: the deviations are stretched by
        sqrt(S / (S - 1)), and by Student's t over the normal quantile.
        """
        size = self._replicates.shape[1]
        if count == 1:
            return np.zeros((1, size))
        drawn = np.random.default_rng(stream).multinomial(
            count, np.full(count, 1 / count), size=size
        )
        stretch = np.sqrt(count / (count - 1)) * t.ppf(0.975, count - 1) / norm.ppf(0.975)
        return np.asarray(stretch * (drawn.T / count - 1 / count))


def _column_means(values: Values) -> Values:
    missing = np.isnan(values)
    count = (~missing).sum(0)
    total = np.where(missing, 0, values).sum(0)
    return np.asarray(np.where(count > 0, total / np.maximum(1, count), np.nan))
