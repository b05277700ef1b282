"""Details of a few configurations: all metrics, paired tests, curves, and where they fail."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.errors import ImageError
from dfl.evaluation import METRICS, mcnemar, most_wrong, roc_points
from dfl.report.figures.thumbnail import thumbnail
from dfl.report.study.content import HardImage
from dfl.study.analysis.estimates import Estimate, Estimator
from dfl.study.analysis.judge import Judge, Metrics
from dfl.study.analysis.ranking import Configuration
from dfl.study.design.grid import Cell
from dfl.study.run.cells import CellStore
from dfl.types import FAKE, REAL

_THUMBNAIL_PX: Final = 160
_WORDS: Final = {REAL: "real", FAKE: "fake"}
_SCOPES: Final = ("dataset", "generator", "pooled", "macro", "worst")


@dataclass(frozen=True)
class TrainedConfiguration:
    """A configuration on one training set.

    Attributes:
        name: What it is called.
        cells: Its cells, one a seed, at least one.
    """

    name: str
    cells: Sequence[Cell]


class Details:
    """Computes, from their scores, what is shown of a few configurations alone.

    Args:
        judge: Computes metrics.
        estimator: Averages over seeds.
        keys: Keys of all finished cells.
        store: Where they are.
    """

    def __init__(
        self, judge: Judge, estimator: Estimator, keys: Mapping[Cell, str], store: CellStore
    ) -> None:
        self._judge = judge
        self._estimator = estimator
        self._keys = keys
        self._store = store

    def metrics(self, trained: TrainedConfiguration) -> pd.DataFrame:
        """Give every metric on every test set, over all seeds, with intervals.

        Returns:
            Under its `Study.judged_condition`:
            ``configuration, test_set, n_real, n_fake``, and each of ``METRICS`` with its
            ``_low`` and ``_high``; the counts are those of the first seed.
        """
        by_seed = {
            cell.seed: self._judge.values(cell, self._scores(cell)) for cell in trained.cells
        }
        first = next(iter(by_seed.values()))
        test_condition = self._judge.study.judged_condition(trained.cells[0])
        by_generator = has_several_generators(next(iter(self._judge.study.frames.values())))
        scopes = [scope for scope in _SCOPES if scope != "generator" or by_generator]
        rows = []
        for key in first:
            condition, split, scope, name = key
            if condition != test_condition or split != "test" or scope not in scopes:
                continue
            across = {seed: values[key] for seed, values in by_seed.items() if key in values}
            test_set = name if scope == "dataset" else f"{scope}: {name}"
            rows.append(
                {
                    "configuration": trained.name,
                    "test_set": test_set if scope in ("dataset", "generator") else scope,
                    "n_real": int(first[key]["n_real"][0]),
                    "n_fake": int(first[key]["n_fake"][0]),
                }
                | self._averaged(across)
            )
        return pd.DataFrame(rows)

    def comparison(
        self, first: TrainedConfiguration, second: TrainedConfiguration
    ) -> dict[str, object] | None:
        """Test whether one configuration is better than another on the same test images.

        Compared on the seeds that both have, as each seed has test images of its own.

        Returns:
            ``a, b, test_set, difference, low, high, p, mcnemar_p``: the difference of the primary
            metric, mean over the datasets, with the p-value of the paired bootstrap, and McNemar's
            exact test by group on the decisions of the first seed at the thresholds of validation;
            None if they share no seed.
        """
        seeds = {cell.seed for cell in first.cells} & {cell.seed for cell in second.cells}
        if not seeds:
            return None
        of_a, of_b = (
            [cell for cell in each.cells if cell.seed in seeds] for each in (first, second)
        )
        difference = self._mean(of_a).minus(self._mean(of_b))
        a = self.decisions(of_a[0])
        b = self.decisions(next(cell for cell in of_b if cell.seed == of_a[0].seed))
        return {
            "a": first.name,
            "b": second.name,
            "test_set": "macro",
            "difference": difference.difference,
            "low": difference.low,
            "high": difference.high,
            "p": difference.p,
            "mcnemar_p": mcnemar(a["correct"], b["correct"], groups=a["group"].tolist()),
        }

    def roc_curves(
        self, several: Sequence[TrainedConfiguration]
    ) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """Give the ROC curves of the first seed over all test images, each once, by name.

        There is none where the test images are of one class.
        """
        curves = {}
        for trained in several:
            table = self.decisions(trained.cells[0])
            if table["label"].nunique() == 2:
                curves[trained.name] = roc_points(table["score"], table["label"])
        return curves

    def hardest(
        self, trained: TrainedConfiguration, manifest: Manifest, count: int
    ) -> list[HardImage]:
        """Pick the test images that the first seed's detector gets most wrong, with thumbnails.

        Images that are not there any more are passed over.
        """
        table = self.decisions(trained.cells[0])
        threshold = float(table["threshold"].iloc[0])
        found: list[HardImage] = []
        for row in most_wrong(table, count, threshold=threshold).to_dict("records"):
            try:
                picture = thumbnail(manifest.resolve(str(row["path"])), size_px=_THUMBNAIL_PX)
            except (ImageError, OSError):
                continue
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=80)
            found.append(
                HardImage(
                    caption=str(row["path"]),
                    label=_WORDS[int(row["label"])],
                    verdict=_WORDS[FAKE if row["score"] > threshold else REAL],
                    score=float(row["score"]) - threshold,
                    dataset=str(row["dataset"]),
                    generator=str(row["generator"]),
                    jpeg=stream.getvalue(),
                )
            )
        return found

    def decisions(self, cell: Cell) -> pd.DataFrame:
        """Give a cell's test rows with its score, the threshold, and whether it is right."""
        return self._judge.decisions(cell, self._scores(cell))

    def _mean(self, cells: Sequence[Cell]) -> Estimate:
        """Average the primary metric of a configuration over the datasets, and over seeds."""
        cell = cells[0]
        table = Configuration.of(cell).rows(self._estimator.table)
        return self._estimator.mean(
            table[
                (table["scope"] == "macro")
                & (table["split"] == "test")
                & (table["train_set"] == cell.train_set)
                & (table["test_condition"] == self._judge.study.judged_condition(cell))
                & table["seed"].isin([cell.seed for cell in cells])
            ]
        )

    def _scores(self, cell: Cell) -> dict[str, npt.NDArray[np.float64]]:
        return self._store.read(self._keys[cell])[0]

    def _averaged(self, across: Mapping[int, Metrics]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, metric in METRICS.items():
            estimate = self._estimator.over_seeds(
                {seed: (float(v[name][0]), v[name][1:]) for seed, v in across.items()}
            )
            ends = (estimate.low, estimate.high) if metric.has_interval else (np.nan, np.nan)
            found |= {name: estimate.value, f"{name}_low": ends[0], f"{name}_high": ends[1]}
        return found


def has_several_generators(frame: pd.DataFrame) -> bool:
    """Say whether some dataset has fakes of several generators.

    Where none has, the rows of generators would say the same again.

    Args:
        frame: The rows of a manifest.
    """
    fakes = frame[frame["label"] == FAKE]
    return bool((fakes.groupby("dataset")["generator"].nunique() > 1).any())
