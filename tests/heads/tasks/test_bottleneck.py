from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from dfl.commands.encode import encode
from dfl.errors import ConfigError
from dfl.features import FeatureStore
from dfl.heads.tasks.bottleneck import BottleneckTask
from tests.heads.small_tasks import ADAM, feature_folder, run


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    return feature_folder(tmp_path_factory.mktemp("bottleneck") / "features")


def test_linear_bottleneck__reconstructs_as_well_as_pca(features: Path) -> None:
    store = FeatureStore.open(features)
    frame = store.manifest.frame
    train = ((frame["split"] == "train") & ~frame["path"].duplicated()).to_numpy()
    task = BottleneckTask(code_dim=2, hidden_dims=[], optimizer=ADAM)
    run("fit", task, features, max_epochs=1, limit_val_batches=0)  # the statistics
    matrix = torch.from_numpy(store.matrix()[train])
    optimizer = torch.optim.LBFGS(
        task.model.parameters(), max_iter=500, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = task.head_step(matrix, None)["loss"].mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    standard = StandardScaler().fit_transform(store.matrix()[train])
    pca = PCA(2).fit(standard)
    error = np.square(pca.inverse_transform(pca.transform(standard)) - standard).mean()
    with torch.no_grad():
        found = task.head_step(matrix, None)["loss"].mean().item()
    assert found == pytest.approx(error, rel=1e-3)


def test_loss__is_the_weighted_sum_of_its_terms(features: Path) -> None:
    task = BottleneckTask(2, [4], classify_weight=0.5, optimizer=ADAM)
    made = run("fit", task, features)
    run("test", task, features)
    logged = task.trainer.callback_metrics
    terms = logged["test/reconstruction"] + 0.5 * logged["test/classification"]
    torch.testing.assert_close(logged["test/loss"], terms)
    assert "test/generator/ldm/auroc" in logged
    assert {"train/reconstruction", "train/classification"} <= made.callback_metrics.keys()


def test_without_classifier__no_scores_and_no_gradient_for_it(features: Path) -> None:
    task = BottleneckTask(2, [4], optimizer=ADAM)
    made = run("fit", task, features)
    assert task.scores.empty
    assert "val/reconstruction" in made.callback_metrics
    assert not [name for name in made.callback_metrics if "auroc" in name]
    assert [p.requires_grad for p in task.model.classifier.parameters()] == [False, False]
    with pytest.raises(ConfigError, match="gives no scores; for its codes use `dfl encode`"):
        run("predict", task, features)


def test_with_classifier__predicts_without_labels(features: Path) -> None:
    task = BottleneckTask(2, [4], classify_weight=1.0, optimizer=ADAM)
    run("fit", task, features)
    run("predict", task, features)
    assert len(task.scores) == 60
    assert task.head_step(torch.zeros(2, 6), None)["loss"] is None


VARIANTS = {
    "tied": {"tied": True},
    "denoising": {"noise": 0.5, "tied": True},
    "variational": {"kl_weight": 0.5},
    "variational and joint": {"kl_weight": 0.5, "noise": 0.1, "classify_weight": 1.0},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_variants__fit_and_encode(features: Path, tmp_path: Path, variant: dict) -> None:
    task = BottleneckTask(2, [4], **variant, optimizer=ADAM)
    made = run("fit", task, features)
    made.save_checkpoint(tmp_path / "b.ckpt")
    logged = made.callback_metrics
    assert ("train/kl" in logged) == ("val/kl" in logged) == ("kl_weight" in variant)

    again = BottleneckTask(2, [4], **variant)
    run("test", again, features, ckpt_path=tmp_path / "b.ckpt")
    check_gradients(again)
    store = encode(features, tmp_path / "b.ckpt", tmp_path / "codes")
    matrix = torch.from_numpy(FeatureStore.open(features).matrix())
    with torch.no_grad():
        expected = again.model.eval()(matrix).mean.numpy()
    np.testing.assert_allclose(store.matrix(), expected, rtol=1e-4, atol=1e-5)


def test_loss__of_a_variational_task_has_the_divergence(features: Path) -> None:
    task = BottleneckTask(2, [4], kl_weight=0.5, optimizer=ADAM)
    run("fit", task, features)
    run("test", task, features)
    logged = task.trainer.callback_metrics
    assert logged["test/kl"] > 0
    total = logged["test/reconstruction"] + 0.5 * logged["test/kl"]
    torch.testing.assert_close(logged["test/loss"], total)


def check_gradients(task: BottleneckTask) -> None:
    """Under DDP every parameter that is trained must get a gradient."""
    task.model.train()
    task.head_step(torch.randn(4, 6), torch.tensor([0, 1, 0, 1]))["loss"].mean().backward()
    trained = {name for name, value in task.model.named_parameters() if value.requires_grad}
    reached = {name for name, value in task.model.named_parameters() if value.grad is not None}
    assert trained == reached


def test_architecture__rebuilds_it() -> None:
    task = BottleneckTask(3, [5, 4], classify_weight=0.5, tied=True, noise=0.1, kl_weight=0.2)
    again = BottleneckTask(**task.architecture())
    assert again.architecture() == task.architecture()
    shapes = [p.shape for p in task.build_model(7).parameters()]
    assert [p.shape for p in again.build_model(7).parameters()] == shapes


@pytest.mark.parametrize(
    "arguments",
    [
        {"code_dim": 0},
        {"hidden_dims": [8, 0]},
        {"classify_weight": -0.1},
        {"noise": -1.0},
        {"kl_weight": float("nan")},
    ],
)
def test_arguments__out_of_range(arguments: dict) -> None:
    (name,) = arguments
    with pytest.raises(ConfigError, match=rf"{name} is .+ must be a (whole )?number of at least"):
        BottleneckTask(**arguments)
