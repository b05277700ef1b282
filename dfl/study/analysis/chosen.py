"""What validation chose for each cell, and how long the cell took."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import cast

import pandas as pd
from sklearn.pipeline import Pipeline

from dfl.heads.storage.head_folder import settings
from dfl.recipe import Plain
from dfl.study.analysis.judge import cell_axes
from dfl.study.design.grid import Cell
from dfl.study.run.cells import CellStore
from dfl.study.run.fitting import seeded
from dfl.study.run.study import Study

_Steps = list[tuple[str, dict[str, Plain]]]  # class and settings of each step of a pipeline


def chosen_table(cells: Sequence[Cell], keys: Mapping[Cell, str], study: Study) -> pd.DataFrame:
    """List the cells with what was chosen for them, and their time.

    Args:
        cells: Finished cells.
        keys: Their keys.
        study: What they were fitted on, with all candidates.

    Returns:
        A row a cell, in their order: the axes that name it, ``chosen``, such as "C=0.1,
        n_components=64" (head first; only that in which the candidates differ), and
        ``seconds``, of fitting all candidates, its share of the reductions included, and scoring.
    """
    store = CellStore(study.folder)

    @cache
    def heads(name: str) -> list[_Steps]:
        return _candidates(study.heads.get(name, ()), last=True)

    @cache
    def reductions(name: str) -> list[_Steps]:
        return _candidates(study.reductions.get(name, ()), last=False)

    rows: list[dict[str, object]] = []
    for cell in cells:
        info = store.info(keys[cell])
        words = _differing(info.get("head"), heads(cell.head))
        words += _differing(info.get("reduction"), reductions(cell.reduction))
        if (values := info.get("values")) is not None:
            words.append(f"{values:,} values learnt")
        rows.append(cell_axes(cell) | {"chosen": ", ".join(words), "seconds": info.get("seconds")})
    return pd.DataFrame(rows)


def _candidates(pipelines: Sequence[Pipeline], *, last: bool) -> list[_Steps]:
    """Read what cells keep of their candidates; the seed is an axis, so it makes no difference."""
    every = [settings(seeded(pipeline, 0)) for pipeline in pipelines]
    return [_steps(steps[-1:] if last else steps) for steps in every]


def _steps(kept: Plain) -> _Steps:
    steps = cast(list[dict[str, Plain]], kept if isinstance(kept, list) else [kept])
    return [
        (str(step["class"]).rpartition(".")[2], cast(dict[str, Plain], step["params"]))
        for step in steps
    ]


def _differing(kept: Plain, candidates: Sequence[_Steps]) -> list[str]:
    """Say in what the chosen candidate may differ from the others: classes, then settings."""
    if not kept:
        return []
    chosen = _steps(kept)
    classes = [name for name, _ in chosen]
    others = [[name for name, _ in steps] for steps in candidates]
    words = [name for name in classes if any(name not in other for other in others)]
    alike = [steps for steps, other in zip(candidates, others, strict=True) if other == classes]
    for place, (_, params) in enumerate(chosen):
        for name, value in params.items():
            if len({json.dumps(steps[place][1].get(name)) for steps in alike}) > 1:
                words.append(f"{name}={value}")
    return words
