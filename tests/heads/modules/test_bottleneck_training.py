import numpy as np
import pytest
import torch

from dfl.heads.modules.bottleneck_training import encoder_arrays, train_bottleneck, unexplained
from dfl.heads.settings import BottleneckSettings
from tests.heads.sklearn_examples import images

SETTINGS = BottleneckSettings(
    code_dim=3,
    hidden_dims=[6],
    noise=0.1,
    epochs=2,
    batch_size=32,
    learning_rate=1e-2,
    weight_decay=0.0,
)


def test_train__statistics_are_those_of_all_rows() -> None:
    features, _ = images()

    model = train_bottleneck(features, None, SETTINGS, block=50)

    mean, variance, weights, biases = encoder_arrays(model)
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, features.var(0), rtol=1e-4)
    assert [weight.shape for weight in weights] == [(6, 12), (3, 6)]
    assert [bias.shape for bias in biases] == [(6,), (3,)]
    assert not model.training


def test_train__leaves_the_random_numbers_of_torch_and_numpy_alone() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    train_bottleneck(images()[0], None, SETTINGS)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_unexplained__of_a_bottleneck_that_answers_the_mean() -> None:
    features, _ = images()
    model = train_bottleneck(features, None, SETTINGS)
    torch.nn.init.zeros_(model.decoder[-1].weight)
    torch.nn.init.zeros_(model.decoder[-1].bias)

    assert unexplained(model, features, block=50) == pytest.approx(1.0)
    assert unexplained(model, np.repeat(model.normalise.running_mean.numpy()[None], 3, 0)) == 0
