"""A small study on random features: three datasets, two of which share their real images."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline

from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.provenance import with_provenance
from dfl.features.store import FEATURES, new_store
from dfl.heads.estimators import lda, naive_bayes
from dfl.study.design.grid import Cell, ConditionUse, condition_plan
from dfl.study.design.training_sets import TrainOn, training_sets
from dfl.study.run.condition_features import ConditionFeatures
from dfl.study.run.study import Study
from dfl.types import FeatureLayer

DIMS = {"one": {"a": 6, "b": 4}, "two": {"pooled": 5}}
PARTS = ["one.a", "one.b", "two.pooled"]
SPLITS = ("train", "train", "val", "test", "train")


class Raises(ClassifierMixin, BaseEstimator):
    """An estimator that cannot be fitted."""

    def fit(self, x, y):
        raise RuntimeError("no\nfit")


class Tells(ClassifierMixin, BaseEstimator):
    """An estimator that fails and tells of where."""

    def fit(self, x, y):
        raise RuntimeError(f"in a process of {os.environ['OMP_NUM_THREADS']} thread")


class Dies(GaussianNB):
    """An estimator that takes the process with it, if it is one of a pool."""

    def fit(self, x, y, sample_weight=None):
        if parent_process() is not None:
            os._exit(3)
        return super().fit(x, y)


def pipeline(estimator: BaseEstimator) -> Pipeline:
    return Pipeline([("estimator", estimator)])


def images(seed: int = 0) -> pd.DataFrame:
    """Rows of alpha and beta, which share 40 real images, and of gamma, with unknown ones."""
    sets = [
        ("alpha", 0, "real", "r", 40),
        ("alpha", 1, "g1", "a", 40),
        ("alpha", 1, "g2", "b", 20),
        ("beta", 0, "real", "r", 40),
        ("beta", 1, "h", "c", 40),
        ("gamma", 0, "real", "s", 20),
        ("gamma", 1, "g1", "d", 20),
        ("gamma", -1, "unknown", "u", 10),
    ]
    rows = [
        {
            "path": f"{name}{i:02d}.png",
            "label": label,
            "dataset": dataset,
            "generator": generator,
            "split": SPLITS[(i // 2 + seed) % 5],
            "group": f"{name}{i // 2}",
        }
        for dataset, label, generator, name, count in sets
        for i in range(count)
    ]
    return pd.DataFrame(rows)


def write_backbone(folder: Path, name: str, condition: str, frame: pd.DataFrame) -> Path:
    """Write features in which fakes of different generators lie in different directions."""
    spec = tuple(FeatureLayer(f"{name}.{layer}", d, "ab" * 32) for layer, d in DIMS[name].items())
    recipe = {"class_path": "dfl.backbones.X", "init_args": {"layers": list(DIMS[name])}}
    metadata = {
        "fingerprint": f"{name} {condition}",
        "backbones": {name: recipe},
        "preprocess": {"is": condition},
        "precision": "bf16-mixed",
        "engine": "eager",
    }
    images, place = np.unique(frame["path"], return_inverse=True)
    made_by = pd.Series(frame["generator"].to_numpy(), index=frame["path"])
    made_by = made_by[~made_by.index.duplicated()].loc[images].to_numpy()
    with new_store(folder, Manifest(frame, Path("x")), spec=spec, metadata=metadata) as matrices:
        for n, layer in enumerate(spec):
            rng = np.random.default_rng([len(name), n])
            noise = rng.normal(size=(len(images), layer.dim))
            for generator in ("g1", "g2", "h"):
                shift = rng.normal(size=layer.dim)
                noise[made_by == generator] += shift * (0.4 if condition == "blur" else 0.7)
            if condition == "blur":
                noise += 0.3 * np.random.default_rng(9).normal(size=noise.shape)
            matrices[layer.name][:] = noise[place]
    return folder


def describe_anew(folder: Path, old: str, new: str) -> None:
    """Let a feature folder's description say something else."""
    file = folder / "features.json"
    FEATURES.describe(folder, json.loads(file.read_text().replace(old, new)))


def example(
    root: Path,
    *,
    seeds: Sequence[int] = (0,),
    conditions: Sequence[str] = ("none", "blur"),
    use: Sequence[ConditionUse] = ("both",),
    train_on: Sequence[TrainOn] = ("each", "combined"),
    heads: Mapping[str, list[Pipeline]] | None = None,
    reductions: Mapping[str, list[Pipeline]] | None = None,
    nested: bool = False,
    matched: Sequence[str] = (),
) -> Study:
    """Make a study; its feature folders are written where they are not there."""
    frame = with_provenance(images())
    features: dict[str, ConditionFeatures] = {}
    for condition in conditions:
        folders = {name: root / "features" / condition / name for name in DIMS}
        features[condition] = ConditionFeatures(folders)
        for name, folder in folders.items():
            if not folder.exists():
                write_backbone(folder, name, condition, frame)
    return Study(
        frames={seed: with_provenance(images(seed)) for seed in seeds},
        features=features,
        conditions=condition_plan(list(conditions), list(use)),
        training_sets=training_sets(frame, list(train_on)),
        reductions=reductions or {"none": []},
        heads=heads or {"lda": [lda()], "bayes": [naive_bayes()]},
        folder=root / "cells",
        nested=nested,
        matched=tuple(matched),
    )


def opened_anew(study: Study) -> Study:
    """The same study as another process sees it."""
    return replace(
        study,
        features={
            condition: ConditionFeatures(features.folders)
            for condition, features in study.features.items()
        },
    )


def cell(
    head: str = "lda",
    *,
    features: tuple[str, ...] = ("one.a",),
    reduction: str = "none",
    train_set: str = "alpha",
    condition: str = "none",
    seed: int = 0,
    grid: str = "frozen",
) -> Cell:
    return Cell(grid, features, reduction, head, train_set, condition, seed)
