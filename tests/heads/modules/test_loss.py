import numpy as np
import torch
from scipy.special import expit

from dfl.heads.modules.loss import cross_entropy


def test_cross_entropy__equals_the_formula_and_leaves_unknown_out() -> None:
    logit = torch.tensor([-2.0, 0.5, 3.0, 9.0], requires_grad=True)
    loss = cross_entropy(logit, torch.tensor([0, 1, 0, -1]))
    p = expit([-2.0, 0.5, 3.0])
    expected = -np.log([1 - p[0], p[1], 1 - p[2]])
    np.testing.assert_allclose(loss[:3].detach(), expected, rtol=1e-5)
    assert loss[3].isnan()
    loss[:3].sum().backward()
    np.testing.assert_allclose(logit.grad, [p[0], p[1] - 1, p[2], 0], rtol=1e-5)
