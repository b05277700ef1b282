import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from dfl.backbones import FusedBackbone, TimmBackbone
from dfl.errors import CheckpointError, ConfigError
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.heads.tasks.sklearn_head import SklearnHeadTask
from dfl.types import FeatureLayer
from tests.heads.small_tasks import ADAM, batch


@pytest.fixture(scope="module")
def backbones() -> dict[str, TimmBackbone]:
    torch.manual_seed(0)
    return {"tiny": TimmBackbone("test_vit", pretrained=False, input_size=32)}


@pytest.fixture(scope="module")
def head(backbones) -> SklearnHead:
    spec = FusedBackbone(backbones).spec
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, spec[0].dim)).astype(np.float32)
    pipeline = make_pipeline(LogisticRegression())
    return SklearnHead(pipeline, spec).fit(features, np.arange(40) % 2)


def test_step__pixels_to_the_scores_of_sklearn(backbones, head: SklearnHead) -> None:
    task = SklearnHeadTask(head, backbones)
    task.configure_model()
    image = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    images = batch(torch.empty(0), [-1, -1, -1]) | {"image": image}
    del images["features"]
    step = task.head_step(task.features(images), None)
    expected = head.pipeline.decision_function(FusedBackbone(backbones).features(image).numpy())
    np.testing.assert_allclose(step["logit"], expected, rtol=1e-6)
    assert step["logit"].dtype == torch.float64
    assert step["loss"] is None


def test_step__half_precision_features(backbones, head: SklearnHead) -> None:
    features = torch.randn(2, head.dim, dtype=torch.bfloat16)
    score = SklearnHeadTask(head, backbones).head_step(features, torch.tensor([0, 1]))["logit"]
    expected = head.pipeline.decision_function(features.float().numpy())
    np.testing.assert_allclose(score, expected, rtol=1e-6)


def test_init__backbones_of_another_head(backbones, head: SklearnHead) -> None:
    other = SklearnHead(head.pipeline, (FeatureLayer("tiny.pooled", head.dim, "ee" * 32),))
    with pytest.raises(CheckpointError, match=r"the head does not fit this model: layer 'tiny"):
        SklearnHeadTask(other, backbones)


def test_fit__is_not_done_here(backbones, head: SklearnHead) -> None:
    task = SklearnHeadTask(head, backbones)
    task.optimizer = ADAM
    with pytest.raises(ConfigError, match="not trained by `dfl fit`; use `dfl heads`"):
        task.training_step(batch(torch.zeros(2, head.dim), [0, 1]), 0)
    assert not [p for p in task.parameters() if p.requires_grad]
