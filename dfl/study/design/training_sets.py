"""What a head may be trained on, and what is new to it: a dataset, a generator, a whole family."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.errors import ConfigError, named
from dfl.evaluation import known_rows
from dfl.types import FAKE, REAL

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
TrainOn = Literal[
    "each",
    "combined",
    "all_but_one",
    "all_but_one_generator",
    "leave_one_family_out",
    "leave_one_source_out",
    "leave_one_family_and_source_out",
]
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
        left_out: Which rows were left out to be tested, all of them, whatever their split, shape
            ``(N,)``. None where only a split keeps images apart.
        new: The dataset whose generators and photographs are both new; empty where one of them is
            not.
    """

    name: str
    rows: Mask
    seen: tuple[str, ...]
    generators: tuple[str, ...] = ()
    by_generator: bool = False
    left_out: Mask | None = None
    new: str = ""


def training_sets(frame: pd.DataFrame, train_on: Sequence[TrainOn]) -> dict[str, TrainingSet]:
    """List the training sets.

    Args:
        frame: The rows of a manifest, with its provenance where families or sources are left out.
        train_on: ``each``: every dataset alone; ``combined``: all of them; ``all_but_one``: all
            without one dataset; ``all_but_one_generator``: all without the fakes of one generator;
            ``leave_one_family_out``: all without a family of generators, of which imitations of
            photographs are tested by their split; ``leave_one_source_out``:
            all without a source of photographs, and without copies of them;
            ``leave_one_family_and_source_out``: for every dataset of both classes, and every source
            of its photographs, all without that source and the families of its generators. What
            shares a group with an image that is tested is not trained on either.

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
    photographed = set(frame["group"][known & ~fake])
    imitation = fake & frame["group"].isin(photographed).to_numpy()
    datasets = list(pd.unique(frame["dataset"]))
    makers = list(pd.unique(frame["generator"][fake]))
    found: dict[str, TrainingSet] = {}
    impossible: list[str] = []

    def add(
        name: str,
        rows: Mask,
        *,
        by_generator: bool = False,
        left_out: Mask | None = None,
        new: str = "",
    ) -> None:
        rows = rows & known
        if len(set(frame["label"][rows])) == 2:
            seen = tuple(
                d
                for d in datasets
                if (rows & (dataset == d) & (fake | ~(fake & (dataset == d)).any())).any()
                and (left_out is None or not (left_out & (dataset == d)).any())
            )
            if name in found and (found[name].rows != rows).any():
                raise ConfigError(
                    f"{name!r} names both a dataset and another training set; rename the dataset"
                )
            known_makers = tuple(m for m in makers if (rows & fake & (generator == m)).any())
            found[name] = TrainingSet(name, rows, seen, known_makers, by_generator, left_out, new)

    def leave_out(name: str, kin: Mask, tested: Mask, new: str = "") -> None:
        tested = tested & known
        shared = frame["group"].isin(frame["group"][tested].unique()).to_numpy()
        add(name, ~(kin | tested | shared), left_out=tested, new=new)
        if name not in found:
            impossible.append(name)

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
        elif way in ("leave_one_family_out", "leave_one_source_out"):
            kind = "family" if way == "leave_one_family_out" else "source"
            of_class = fake if kind == "family" else ~fake
            for name in sorted(set(frame[kind][of_class & known]) - {""}):
                kin = (frame[kind] == name).to_numpy()
                # imitations of photographs that are trained on are tested by their split
                leave_out(f"without {kind} {name}", kin, kin & ~(imitation & (kind == "family")))
        elif way == "leave_one_family_and_source_out":
            for name in datasets:
                own = (dataset == name) & known
                families = frame["family"].isin(set(frame["family"][own & fake])).to_numpy()
                sources = list(pd.unique(frame["source"][own & ~fake]))
                several = len(sources) > 1
                for source in sources if (own & fake).any() else []:
                    from_source = (frame["source"] == source).to_numpy()
                    photographs = own & ~fake & from_source
                    # of fakes that imitate photographs, those that imitate these
                    groups = set(frame["group"][photographs])
                    alike = own & fake & frame["group"].isin(groups).to_numpy()
                    fakes = alike if alike.any() and several else families & fake
                    title = f"without family and source of {name}"
                    if several:
                        title = f"without family of {name} and source {source}"
                    tested = fakes | (photographs if several else from_source)
                    leave_out(title, families & fake | from_source, tested, name)
    if impossible and not any(each.left_out is not None for each in found.values()):
        raise ConfigError(
            f"{named(impossible)}: nothing is left of one class to train on; add images of another "
            "source or family, or say with sources and families what is not one"
        )
    if impossible:
        logger.warning(
            "%s: nothing is left of one class to train on, so that there is no such training set",
            named(impossible),
        )
    if not found:
        raise ConfigError(
            f"train_on {list(train_on)}: no training set with real and fake images among the "
            f"datasets {', '.join(datasets)}; add images, or train on the datasets combined"
        )
    return found


def split_rows(frame: pd.DataFrame, training_set: TrainingSet, *splits: str) -> Rows:
    """List the rows of a training set that are in one of some splits, each image once."""
    chosen = training_set.rows & frame["split"].isin(splits).to_numpy()
    return np.flatnonzero(chosen & ~frame["path"].where(chosen).duplicated().to_numpy())


def rows_to_test(frame: pd.DataFrame, training_set: TrainingSet) -> Mask:
    """Say which rows of known label test a training set, shape ``(N,)``.

    They are the test split and all that was left out. Of a class of a dataset of which something
    was left out, it is what was left out alone, so that new images are not averaged with others.
    """
    known = frame["label"].isin((REAL, FAKE)).to_numpy()
    test = (frame["split"] == "test").to_numpy()
    if training_set.left_out is None:
        return np.asarray(known & test)
    left_out = training_set.left_out
    side = frame.groupby(["dataset", "label"]).ngroup().to_numpy()
    mixed = np.isin(side, side[left_out])
    return np.asarray(known & (left_out | (test & ~mixed)))


def held_out_rows(frame: pd.DataFrame) -> Rows:
    """List the rows that cells score which are validated by a split: validation and test."""
    known = known_rows(frame[frame["split"].isin(("val", "test"))])
    return known.index.to_numpy(dtype=np.int64)
