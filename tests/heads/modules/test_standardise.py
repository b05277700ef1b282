import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from dfl.heads.modules.standardise import Standardise

FEATURES = torch.randn(103, 7, generator=torch.Generator().manual_seed(0)) * 5 + 100


def _fitted(batch_size: int) -> Standardise:
    module = Standardise(7)
    for batch in FEATURES.split(batch_size):
        module(batch)
    return module.eval()


def test_standardise__one_pass_equals_sklearn() -> None:
    scaler = StandardScaler().fit(FEATURES.double().numpy())
    for batch_size in (1, 10, 103):
        module = _fitted(batch_size)
        np.testing.assert_allclose(module.running_mean, scaler.mean_, rtol=1e-5)
        np.testing.assert_allclose(module.running_var, scaler.var_, rtol=1e-4)
        expected = scaler.transform(FEATURES.double().numpy())
        np.testing.assert_allclose(module(FEATURES), expected, atol=1e-3)


def test_standardise__frozen_and_eval_do_not_learn() -> None:
    module = _fitted(10)
    before = module.running_mean.clone()
    module(FEATURES + 5)
    module.train()
    module.freeze()
    module(FEATURES + 5)
    torch.testing.assert_close(module.running_mean, before, rtol=0, atol=0)
    assert module.count == 103


def test_standardise__constant_feature_stays_finite() -> None:
    module = Standardise(2)
    assert torch.isfinite(module(torch.ones(4, 2))).all()


def test_standardise__state_survives_a_checkpoint() -> None:
    module = _fitted(10)
    module.freeze()
    again = Standardise(7)
    again.load_state_dict(module.state_dict())
    again.train()(FEATURES + 1)
    torch.testing.assert_close(again.running_mean, module.running_mean)


def test_standardise__loaded_in_the_middle_of_training_it_is_as_frozen_as_what_was_loaded() -> None:
    fitted = _fitted(10)
    fitted.freeze()
    module = Standardise(7)
    module(FEATURES + 3)
    module.load_state_dict(fitted.state_dict())
    module(FEATURES + 3)
    torch.testing.assert_close(module.running_mean, fitted.running_mean, rtol=0, atol=0)
