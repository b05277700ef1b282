"""The axes of a study, and the cells that they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

from dfl.errors import ConfigError

__all__ = ["Cell", "Grid", "Views", "choose_features", "grid_cells", "view_plan"]

Combination = Literal["each", "all"]
ViewUse = Literal["both", "train", "test"]
Views = dict[str, list[str]]
"""By the view that a head is trained under, those that it is tested under."""


@dataclass
class Grid:
    """A part of a study in which every choice meets every other.

    Args:
        features: Sets of feature parts, each set fused: names of parts (clip.block8.cls) or of
            backbones (clip, for all of its layers). ``each`` takes every part alone, ``all`` every
            combination of parts.
        reductions: Names of the study's reductions; all of them by default.
        classifiers: Names of the study's classifiers; all of them by default.
    """

    features: list[list[str]] | Literal["each", "all"] = "each"
    reductions: list[str] | None = None
    classifiers: list[str] | None = None


@dataclass(frozen=True, order=True)
class Cell:
    """One fit of a study.

    Attributes:
        grid: The grid that it belongs to.
        features: The parts that are fused, in order.
        reduction: Name of the reduction.
        classifier: Name of the classifier.
        train_set: Name of the training set.
        train_view: Name of the view of the training images.
        seed: Seed of split, reduction and classifier.
    """

    grid: str
    features: tuple[str, ...]
    reduction: str
    classifier: str
    train_set: str
    train_view: str
    seed: int

    def __str__(self) -> str:
        fused = "+".join(self.features)
        return (
            f"{fused} / {self.reduction} / {self.classifier} / trained on {self.train_set} / "
            f"view {self.train_view} / seed {self.seed}"
        )


def view_plan(views: Sequence[str], use: Sequence[ViewUse]) -> Views:
    """Say which heads are trained under which view, and tested under which.

    Args:
        views: Names of the views; the first is how images come.
        use: ``both``: trained and tested under the same view; ``train``: trained under a view,
            tested on images as they come; ``test``: the other way round.

    Returns:
        By the view of training, the views of testing.
    """
    first = views[0]
    plan: Views = {}
    for view in views:
        pairs = {"both": (view, view), "train": (view, first), "test": (first, view)}
        for way in use:
            train, test = pairs[way]
            tested = plan.setdefault(train, [])
            if test not in tested:
                tested.append(test)
    return plan


def choose_features(grid: Grid, parts: Sequence[str]) -> list[tuple[str, ...]]:
    """List the sets of parts that a grid fuses.

    Args:
        grid: The grid.
        parts: All parts that the study extracts, as ``clip.pooled``.

    Returns:
        Sets in the order of the config, no set twice; the parts of each in the order of `parts`,
        in which a fused backbone gives them too.

    Raises:
        ConfigError: If a name is unknown, a set is empty, or there is none.
    """
    if grid.features == "each":
        return [(part,) for part in parts]
    if grid.features == "all":
        return [fused for size in range(1, len(parts) + 1) for fused in combinations(parts, size)]
    chosen: dict[tuple[str, ...], None] = {}
    for names in grid.features:
        fused: dict[str, None] = {}
        for name in names:
            found = [part for part in parts if name in (part, part.partition(".")[0])]
            if not found:
                raise ConfigError(
                    f"features: no part {name!r}; the backbones give: {', '.join(parts)}"
                )
            fused |= dict.fromkeys(found)
        if not fused:
            raise ConfigError("features: an empty set []; name parts or backbones in it")
        chosen[tuple(part for part in parts if part in fused)] = None
    if not chosen:
        raise ConfigError("features: no set; name parts or backbones, or leave it out")
    return list(chosen)


def grid_cells(
    grids: Mapping[str, Grid],
    *,
    parts: Sequence[str],
    reductions: Sequence[str],
    classifiers: Sequence[str],
    train_sets: Sequence[str],
    train_views: Sequence[str],
    seeds: Sequence[int],
) -> list[Cell]:
    """List the cells of all grids, those that share features and a reduction side by side.

    Args:
        grids: The grids by name.
        parts: All feature parts.
        reductions: Names of all reductions.
        classifiers: Names of all classifiers.
        train_sets: Names of the training sets.
        train_views: The views that heads are trained under.
        seeds: The seeds.

    Returns:
        The cells; one that two grids ask for is the first one's.

    Raises:
        ConfigError: If a grid names something unknown, or nothing.
    """
    cells: dict[tuple[object, ...], Cell] = {}
    for name, grid in grids.items():
        axes = product(
            seeds,
            train_views,
            train_sets,
            choose_features(grid, parts),
            _known(f"grids.{name}.reductions", grid.reductions, reductions),
            _known(f"grids.{name}.classifiers", grid.classifiers, classifiers),
        )
        for seed, view, train_set, fused, reduction, classifier in axes:
            cell = Cell(name, fused, reduction, classifier, train_set, view, seed)
            cells.setdefault((fused, reduction, classifier, train_set, view, seed), cell)
    return list(cells.values())


def _known(setting: str, asked: list[str] | None, known: Sequence[str]) -> Sequence[str]:
    if asked is None:
        return known
    if not asked:
        raise ConfigError(f"{setting}: empty; name some of {', '.join(known)}, or leave it out")
    for name in asked:
        if name not in known:
            raise ConfigError(f"{setting}: no {name!r}; there are: {', '.join(known)}")
    return asked
