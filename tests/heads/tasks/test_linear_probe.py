from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dfl.features import FeatureStore
from dfl.heads.modules.linear import LinearHead
from dfl.heads.tasks.linear_probe import LinearProbeTask
from dfl.types import UNKNOWN
from tests.heads.small_tasks import feature_folder, run


def test_fit__converges_to_logistic_regression(tmp_path: Path) -> None:
    features = feature_folder(tmp_path / "features")
    decay = 0.1
    # SGD decays the bias too, which the reference does not: so it gets no decay
    task = LinearProbeTask(
        optimizer=lambda parameters: torch.optim.SGD(
            [
                {"params": [p], "weight_decay": decay if p.ndim == 2 else 0.0}
                for p in list(parameters)
            ],
            lr=0.3,
        ),
        lr_scheduler=lambda opt: torch.optim.lr_scheduler.CosineAnnealingLR(opt, 80),
    )
    run("fit", task, features, max_epochs=80, limit_val_batches=0, num_sanity_val_steps=0)
    run("test", task, features)

    store = FeatureStore.open(features)
    frame, matrix = store.manifest.frame, store.matrix()
    train = ((frame["split"] == "train") & ~frame["path"].duplicated()).to_numpy()
    test = (frame["split"] == "test").to_numpy()
    scaler = StandardScaler().fit(matrix[train])
    reference = LogisticRegression(C=1 / (decay * train.sum()), tol=1e-10)
    reference.fit(scaler.transform(matrix[train]), frame["label"][train])
    expected = reference.decision_function(scaler.transform(matrix[test]))
    np.testing.assert_allclose(task.scores["score"], expected, atol=0.03)
    assert (task.scores["score"] > 0).tolist() == (expected > 0).tolist()


def test_head_step__a_value_a_sample() -> None:
    task = LinearProbeTask()
    task.model = LinearHead(3)
    step = task.head_step(torch.randn(4, 3), torch.tensor([0, 1, 1, UNKNOWN]))
    assert step["loss"].isnan().tolist() == [False, False, False, True]
    assert step["logs"] == {}
    assert task.head_step(torch.randn(4, 3), None)["loss"] is None
    assert task.architecture() == {}
