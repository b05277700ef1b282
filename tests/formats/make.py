"""Write small examples of what dfl keeps on disk, for the test that they stay readable.

    python tests/formats/make.py

They are not to be made anew with every change: what was written by an earlier version must be read
by a later one. Only a deliberate new format adds its own.
"""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT.parents[1]))

from dfl.evaluation import write_scores  # noqa: E402
from dfl.features.store import FeatureStore  # noqa: E402
from dfl.heads.estimators import rbf_svm  # noqa: E402
from dfl.heads.estimators.reductions import pca, reduced  # noqa: E402
from dfl.heads.storage.head_folder import save_head  # noqa: E402
from dfl.heads.storage.sklearn_head import SklearnHead  # noqa: E402
from dfl.heads.tasks.linear_probe import LinearProbeTask  # noqa: E402
from tests.features.small_extraction import backbone, images, run  # noqa: E402
from tests.heads import small_tasks  # noqa: E402

FEATURES, HEAD, PROBE = ROOT / "features", ROOT / "head", ROOT / "probe.ckpt"
MANIFEST = ROOT / "images" / "manifest.csv"
SCORES, EXPECTED = ROOT / "scores.csv", ROOT / "expected.json"


def inputs() -> np.ndarray:
    """Give 40 rows of six columns that anybody can make again, float32."""
    row = np.arange(40, dtype=np.float32)[:, None]
    column = np.arange(1, 7, dtype=np.float32)
    return np.asarray(np.mod(row * column, 7) + (row % 2) * (column < 3))


def main() -> None:
    os.chdir(ROOT)  # the folder of the images is kept as it is given
    for old in (FEATURES, HEAD, ROOT / "images"):
        shutil.rmtree(old, ignore_errors=True)
    images(MANIFEST.parent)
    run(MANIFEST.relative_to(ROOT), FEATURES, backbone())
    store = FeatureStore.open(FEATURES)
    x, label = inputs(), np.arange(40) % 2
    pipeline = reduced(rbf_svm(), pca(n_components=3))
    head = SklearnHead(pipeline, store.spec, store.origin()).fit(x, label)
    head = replace(head, threshold=0.25, calibration=(2.0, -0.5))
    save_head(head, HEAD, counts={"real": 20, "fake": 20})
    torch.manual_seed(0)
    task = LinearProbeTask(optimizer=small_tasks.ADAM)
    small_tasks.run("fit", task, FEATURES, limit_val_batches=0).save_checkpoint(PROBE)
    with torch.no_grad():
        logit = task.model(torch.from_numpy(x)).flatten()
    table = store.manifest.frame.assign(score=np.linspace(-1, 1, len(store.manifest)) / 3)
    write_scores(table[["path", "dataset", "generator", "split", "label", "score"]], SCORES)
    expected = {
        "head": [float(score) for score in head.score(x)],
        "probe": [float(value) for value in logit],
        "scores": table["score"].tolist(),
        "paths": table["path"].tolist(),
    }
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
