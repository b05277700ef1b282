"""Score tables for the tests of reports."""

import numpy as np
import pandas as pd

from dfl.types import REAL

COLUMNS = ["path", "dataset", "generator", "split", "label", "score"]


def score_frame(*rows):
    """Rows of (path, dataset, generator, label, score), all of the split test."""
    return pd.DataFrame([(*row[:3], "test", *row[3:]) for row in rows], columns=COLUMNS)


def two_pairs(n=20, seed=0):
    """Two pairs that share their reals; the second has two generators and is harder."""
    rng = np.random.default_rng(seed)
    rows = []
    real = rng.normal(size=n) - 1
    for pair, generators, shift in (("easy", ["gan"], 2.0), ("hard", ["gan", "ldm"], 0.5)):
        rows += [(f"real/{i}.png", pair, "real", REAL, real[i]) for i in range(n)]
        for i in range(n):
            generator = generators[i % len(generators)]
            path = f"{pair}/{generator}/{i}.png"
            rows.append((path, pair, generator, 1, rng.normal() + shift))
    return score_frame(*rows)
