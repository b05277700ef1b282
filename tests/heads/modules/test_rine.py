import numpy as np
import torch

from dfl.heads.modules.losses import rine_loss
from dfl.heads.modules.rine import RINEHead, RINEOutput
from dfl.heads.modules.rine_training import train_rine
from dfl.heads.settings import RINESettings
from tests.heads.sklearn_examples import images


def small(seed: int = 0) -> RINEHead:
    torch.manual_seed(seed)
    return RINEHead(3, 4, projection_dim=5, projection_layers=2, dropout=0.5)


def test_forward__one_block_after_the_other() -> None:
    """The sum over blocks of softmax weights times each block's own projection."""
    head = small().eval()
    torch.nn.init.normal_(head.importance)
    features = torch.randn(7, 12)

    found = head(features)

    weights = torch.exp(head.importance) / torch.exp(head.importance).sum(0)
    pooled = torch.zeros(7, 5)
    for block in range(3):
        standard = head.normalise(features)[:, 4 * block : 4 * block + 4]
        pooled += weights[block] * head.project(standard)
    representation = head.refine(pooled)
    torch.testing.assert_close(found.representation, representation)
    torch.testing.assert_close(found.logit, head.classify(representation)[:, 0])
    assert [len(list(part)) for part in (head.project, head.refine, head.classify)] == [6, 6, 7]


def test_forward__takes_of_a_block_what_its_weight_says() -> None:
    head = small().eval()
    with torch.no_grad():
        head.importance[1] = 100.0
    features = torch.randn(7, 12)
    changed = features.clone()
    changed[:, :4] += 1
    changed[:, 8:] -= 1

    torch.testing.assert_close(head(changed).logit, head(features).logit)


def test_loss__adds_the_contrast() -> None:
    output = RINEOutput(torch.randn(6), torch.randn(6, 4))
    label = torch.tensor([0, 1, 1, 0, 1, 0])

    loss, terms = rine_loss(output, label, contrast_weight=0.5)
    alone, none = rine_loss(output, label)

    torch.testing.assert_close(loss, alone + 0.5 * terms["contrast"])
    assert none == {}


def test_train__finds_the_block_that_tells() -> None:
    rng = np.random.default_rng(0)
    label = (np.arange(200) % 2).astype(np.int64)
    features = rng.normal(size=(200, 12)).astype(np.float32)
    features[:, 4:8] += 2 * label[:, None]
    settings = RINESettings(projection_dim=8, dropout=0.0, epochs=15, learning_rate=0.02)

    head = train_rine(features, label, settings, blocks=3)

    share = head.importance.softmax(0).mean(1)
    assert share.argmax() == 1


def test_train__leaves_the_random_numbers_of_torch_alone() -> None:
    features, label = images(40)
    before = torch.get_rng_state()

    train_rine(features, label, RINESettings(projection_dim=4, epochs=1), blocks=3)

    assert torch.equal(torch.get_rng_state(), before)
