"""What a study has to do, counted before it begins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dfl.study.design.grid import Cell, Conditions
from dfl.types import backbone_of


@dataclass(frozen=True)
class StudyPlan:
    """The size of a study.

    Attributes:
        cells: How many fits there are.
        cells_done: How many of them are there already.
        images: How many distinct images there are.
        passes: Forward passes of an image through a backbone that all of the study takes.
        passes_done: How many of them were made before.
        passes_saved: How many more it would be if every cell made its own.
        seconds: Estimate of the time that is left; None where there is nothing to do.
    """

    cells: int
    cells_done: int
    images: int
    passes: int
    passes_done: int
    passes_saved: int
    seconds: float | None = None


def forward_passes(
    cells: Sequence[Cell],
    conditions: Conditions,
    *,
    images: int,
    folders: Mapping[tuple[str, str], int],
    needs: Callable[[Cell], tuple[int, int]],
) -> tuple[int, int, int]:
    """Count forward passes: needed, made before, and saved by the store.

    Args:
        cells: The cells.
        conditions: By condition of training, the conditions of testing.
        images: How many distinct images there are.
        folders: For every (condition, backbone) how many of the images are still to be seen.
        needs: How many images a cell learns from, and how many others it scores.

    Returns:
        Passes needed in all, made before, and saved: what the cells would make, each of its own
        images under its own conditions through its own backbones, less those needed.
    """
    needed = images * len(folders)
    done = needed - sum(folders.values())
    alone = 0
    for cell in cells:
        backbones = {backbone_of(layer) for layer in cell.features}
        scored = {cell.train_condition, *conditions[cell.train_condition]}
        learnt_from, held = needs(cell)
        alone += (learnt_from + held * len(scored)) * len(backbones)
    return needed, done, max(0, alone - needed)
