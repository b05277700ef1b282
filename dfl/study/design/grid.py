"""The axes of a study, and the cells that they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

from dfl.errors import ConfigError
from dfl.types import backbone_of

ConditionUse = Literal["both", "train", "test"]
Conditions = dict[str, list[str]]
"""By the condition that a head is trained under, those that it is tested under."""


@dataclass
class Grid:
    """A part of a study in which every choice meets every other.

    Args:
        features: Sets of feature layers, each set fused: names of layers (clip.block8.cls) or of
            backbones (clip, for all of its layers). ``each`` takes every layer alone, ``all`` every
            combination of layers.
        reductions: Names of the study's reductions; all of them by default.
        heads: Names of the study's heads; all of them by default.
    """

    features: list[list[str]] | Literal["each", "all"] = "each"
    reductions: list[str] | None = None
    heads: list[str] | None = None


@dataclass(frozen=True, order=True)
class Cell:
    """One fit of a study.

    Attributes:
        grid: The grid that it belongs to.
        features: The layers that are fused, in order.
        reduction: Name of the reduction.
        head: Name of the head.
        train_set: Name of the training set.
        train_condition: Name of the condition of the training images.
        seed: Seed of split, reduction and head.
    """

    grid: str
    features: tuple[str, ...]
    reduction: str
    head: str
    train_set: str
    train_condition: str
    seed: int

    def __str__(self) -> str:
        fused = "+".join(self.features)
        return (
            f"{fused} / {self.reduction} / {self.head} / trained on {self.train_set} / "
            f"condition {self.train_condition} / seed {self.seed}"
        )


def condition_plan(
    conditions: Sequence[str], use: Sequence[ConditionUse], draws: Sequence[str] = ()
) -> Conditions:
    """Say which heads are trained under which condition, and tested under which.

    Args:
        conditions: Names of the conditions; the first is how images come.
        use: ``both``: trained and tested under the same condition; ``train``: trained under a
            condition, tested on images as they come; ``test``: the other way round.
        draws: Names of draws, which are for training; tested are those who learn from them on
            images as they come and, with ``test``, under all conditions.

    Returns:
        By the condition of training, the conditions of testing.
    """
    first = conditions[0]
    plan: Conditions = {}
    for condition in conditions:
        pairs = {
            "both": (condition, condition),
            "train": (condition, first),
            "test": (first, condition),
        }
        for way in use:
            train, test = pairs[way]
            tested = plan.setdefault(train, [])
            if test not in tested:
                tested.append(test)
    for name in draws:
        plan[name] = [*conditions] if "test" in use else [first]
    return plan


def choose_features(grid: Grid, layers: Sequence[str]) -> list[tuple[str, ...]]:
    """List the sets of layers that a grid fuses.

    Args:
        grid: The grid.
        layers: All layers that the study extracts, as ``clip.pooled``.

    Returns:
        Sets in the order of the config, no set twice; the layers of each in the order of `layers`,
        in which a fused backbone gives them too.

    Raises:
        ConfigError: If a name is unknown, a set is empty, or there is none.
    """
    if grid.features == "each":
        return [(layer,) for layer in layers]
    if grid.features == "all":
        return [fused for size in range(1, len(layers) + 1) for fused in combinations(layers, size)]
    chosen: dict[tuple[str, ...], None] = {}
    for names in grid.features:
        fused: dict[str, None] = {}
        for name in names:
            found = [layer for layer in layers if name in (layer, backbone_of(layer))]
            if not found:
                raise ConfigError(
                    f"features: no layer {name!r}; the backbones give: {', '.join(layers)}"
                )
            fused |= dict.fromkeys(found)
        if not fused:
            raise ConfigError("features: an empty set []; name layers or backbones in it")
        chosen[tuple(layer for layer in layers if layer in fused)] = None
    if not chosen:
        raise ConfigError("features: no set; name layers or backbones, or leave it out")
    return list(chosen)


def grid_cells(
    grids: Mapping[str, Grid],
    *,
    layers: Sequence[str],
    reductions: Sequence[str],
    heads: Sequence[str],
    train_sets: Sequence[str],
    train_conditions: Sequence[str],
    seeds: Sequence[int],
) -> list[Cell]:
    """List the cells of all grids, those that share features and a reduction side by side.

    Args:
        grids: The grids by name.
        layers: All feature layers.
        reductions: Names of all reductions.
        heads: Names of all heads.
        train_sets: Names of the training sets.
        train_conditions: The conditions that heads are trained under.
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
            train_conditions,
            train_sets,
            choose_features(grid, layers),
            _known(f"grids.{name}.reductions", grid.reductions, reductions),
            _known(f"grids.{name}.heads", grid.heads, heads),
        )
        for seed, condition, train_set, fused, reduction, head in axes:
            cell = Cell(name, fused, reduction, head, train_set, condition, seed)
            cells.setdefault((fused, reduction, head, train_set, condition, seed), cell)
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
