import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import binary_cross_entropy_with_logits

from dfl.heads.modules.linear import LinearHead
from tests.heads.sklearn_examples import DIM, images


def _converged(features: torch.Tensor, label: torch.Tensor, decay: float) -> LinearHead:
    head = LinearHead(DIM)
    head.train()(features)  # one pass sets the statistics
    head.eval()
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(head(features), label.float())
        loss = loss + decay / 2 * head.linear.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return head


def test_linear__trained_to_the_end_is_logistic_regression() -> None:
    features, label = images(200)
    unseen, _ = images(50, seed=1)
    features, unseen = features * 100, unseen * 100  # variances far above the head's epsilon
    decay = 0.05
    head = _converged(torch.from_numpy(features), torch.from_numpy(label), decay)

    scaler = StandardScaler().fit(features)
    reference = LogisticRegression(C=1 / (decay * len(label)), tol=1e-10, max_iter=1000)
    reference.fit(scaler.transform(features), label)
    expected = reference.decision_function(scaler.transform(unseen))

    with torch.no_grad():
        np.testing.assert_allclose(head(torch.from_numpy(unseen)), expected, atol=2e-3)
        np.testing.assert_allclose(head.linear.weight, reference.coef_, atol=1e-3)


def test_linear__starts_undecided_whatever_the_seed() -> None:
    score = LinearHead(3)(torch.randn(5, 3))
    assert score.shape == (5,)
    assert torch.equal(score, torch.zeros(5))


def test_linear__a_batch_of_one_and_half_precision_features() -> None:
    head = LinearHead(3)
    score = head(torch.randn(1, 3, dtype=torch.bfloat16))
    assert score.shape == (1,)
    assert score.dtype == torch.float32
