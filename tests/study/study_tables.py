"""Results tables whose numbers are known, for the tests of what is made from them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from dfl.study.analysis.judge import Results

B = 400
CASE = {
    "grid": "frozen",
    "features": "clip",
    "reduction": "none",
    "head": "lda",
    "train_set": "alpha",
    "train_condition": "none",
    "test_condition": "none",
    "seed": 0,
    "split": "test",
    "scope": "seen",
    "name": "mean",
}
Case = Mapping[str, object]


def cases(base: Case | None = None, **axes: Sequence[object]) -> list[dict[str, object]]:
    """Every combination of the axes given."""
    found = [CASE | dict(base or {})]
    for axis, levels in axes.items():
        found = [case | {axis: level} for case in found for level in levels]
    return found


def results(
    rows: Sequence[Case],
    value: Callable[[Case], float],
    *,
    noise: float = 0.01,
    metric: str = "ap",
    seed: int = 0,
) -> Results:
    """Give each row its value; replicates vary together by 0.1 and on their own by `noise`."""
    rng = np.random.default_rng(seed)
    common = rng.normal(scale=0.1, size=B)
    table = pd.DataFrame(rows).assign(ap=0.5, auroc=0.5, calibration_error=0.5)
    table[metric] = [value(row) for row in rows]
    replicates = (
        table[metric].to_numpy()[:, None] + common + rng.normal(scale=noise, size=(len(rows), B))
    )
    tested = (table["split"] == "test").to_numpy()
    return Results(table, replicates[tested].astype(np.float32))
