"""What a head may be trained on: one dataset, all of them, or all but one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.errors import ConfigError
from dfl.evaluation import known_rows
from dfl.types import FAKE, REAL

Rows = npt.NDArray[np.int64]
TrainOn = Literal["each", "combined", "all_but_one", "all_but_one_generator"]
COMBINED: Final = "combined"
RESERVED: Final = frozenset({"macro", "pooled", "worst", "seen", "unseen"})
"""What tables call summaries of test sets, and so no dataset."""


@dataclass(frozen=True)
class TrainingSet:
    """The rows of a manifest that a head may learn from, of whatever split.

    Attributes:
        name: What it is called.
        rows: Which rows of the manifest, shape ``(N,)``.
        seen: The datasets that count as trained on: by their fakes, or by their reals where they
            have no fakes. All others test generalisation.
        generators: The generators whose fakes are among them.
        by_generator: Whether a generator was left out, so that what is unseen is a generator, not a
            dataset.
    """

    name: str
    rows: npt.NDArray[np.bool_]
    seen: tuple[str, ...]
    generators: tuple[str, ...] = ()
    by_generator: bool = False


def training_sets(frame: pd.DataFrame, train_on: Sequence[TrainOn]) -> dict[str, TrainingSet]:
    """List the training sets.

    Args:
        frame: The rows of a manifest.
        train_on: ``each``: every dataset alone; ``combined``: all of them; ``all_but_one``: all
            without one dataset; ``all_but_one_generator``: all without the fakes of one generator.

    Returns:
        Training sets by name. A dataset that lacks a class is no training set alone; with one
        dataset, or one generator, there is nothing to leave out.

    Raises:
        ConfigError: If nothing is left to train on, or a dataset has the name of another set.
    """
    if taken := RESERVED.intersection(frame["dataset"].unique()):
        raise ConfigError(
            f"a dataset is called {min(taken)!r}, which a study calls a summary of all; rename it"
        )
    known = frame["label"].isin((REAL, FAKE)).to_numpy()
    dataset = frame["dataset"].to_numpy()
    generator = frame["generator"].to_numpy()
    fake = (frame["label"] == FAKE).to_numpy()
    datasets = list(pd.unique(frame["dataset"]))
    makers = list(pd.unique(frame["generator"][fake]))
    found: dict[str, TrainingSet] = {}

    def add(name: str, rows: npt.NDArray[np.bool_], *, by_generator: bool = False) -> None:
        rows = rows & known
        if len(set(frame["label"][rows])) == 2:
            seen = tuple(
                d
                for d in datasets
                if (rows & (dataset == d) & (fake | ~(fake & (dataset == d)).any())).any()
            )
            if name in found and (found[name].rows != rows).any():
                raise ConfigError(
                    f"{name!r} names both a dataset and another training set; rename the dataset"
                )
            known_makers = tuple(m for m in makers if (rows & fake & (generator == m)).any())
            found[name] = TrainingSet(name, rows, seen, known_makers, by_generator)

    for way in train_on:
        if way == "each":
            for name in datasets:
                add(name, dataset == name)
        elif way == "combined" and (len(datasets) > 1 or "each" not in train_on):
            add(COMBINED, np.ones(len(frame), dtype=bool))
        elif way == "all_but_one" and len(datasets) > 1:
            for name in datasets:
                add(f"all but {name}", dataset != name)
        elif way == "all_but_one_generator" and len(makers) > 1:
            for name in makers:
                add(f"without {name}", ~(fake & (generator == name)), by_generator=True)
    if not found:
        raise ConfigError(
            f"train_on {list(train_on)}: no training set with real and fake images among the "
            f"datasets {', '.join(datasets)}; add images, or train on the datasets combined"
        )
    return found


def split_rows(frame: pd.DataFrame, training_set: TrainingSet, split: str) -> Rows:
    """List the rows of a training set that are in a split, each image once."""
    chosen = training_set.rows & (frame["split"] == split).to_numpy()
    return np.flatnonzero(chosen & ~frame["path"].where(chosen).duplicated().to_numpy())


def held_out_rows(frame: pd.DataFrame) -> Rows:
    """List the rows that every cell scores: validation and test, of known label."""
    known = known_rows(frame[frame["split"].isin(("val", "test"))])
    return known.index.to_numpy(dtype=np.int64)
