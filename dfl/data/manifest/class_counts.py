"""How many images a manifest has of what."""

import logging
from typing import Final

import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.rules import SPLITS
from dfl.types import FAKE, REAL, UNKNOWN

logger = logging.getLogger(__name__)

KEYS: Final = ["dataset", "label", "generator", "split"]
NAMES: Final = {REAL: "real images", FAKE: "fake images", UNKNOWN: "images"}


def count_images(manifest: Manifest) -> pd.DataFrame:
    """Return the number of ``images`` of each dataset, label, generator and split."""
    counts = manifest.frame.groupby(KEYS, sort=True).size()
    return counts.rename("images").reset_index()


def log_counts(manifest: Manifest) -> None:
    """Log the counts, one line each, and warn of datasets that hold one class only."""
    counts = count_images(manifest)
    for (dataset, label, generator), rows in counts.groupby(KEYS[:3], sort=False):
        by_split = dict(zip(rows["split"], rows["images"], strict=True))
        parts = [f"{by_split[name]} {name}" for name in SPLITS[1:] if name in by_split]
        kind = NAMES[int(str(label))]  # pandas types a key as any hashable
        what = f"{rows['images'].sum()} {kind} ({generator})"
        logger.info("%s: %s", dataset, ": ".join([what, ", ".join(parts)] if parts else [what]))
    for name, labels in counts.groupby("dataset")["label"].unique().items():
        if len(labels) == 1 and labels[0] != UNKNOWN:
            logger.warning(
                "%s: holds %s only, so it has no metrics of its own; pair it with another set",
                name,
                NAMES[labels[0]],
            )
