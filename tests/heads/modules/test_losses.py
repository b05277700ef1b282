import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.special import expit
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from dfl.heads.modules.bottleneck import Bottleneck, BottleneckOutput
from dfl.heads.modules.losses import (
    alignment,
    bottleneck_loss,
    cross_entropy,
    disagreement,
    divergence,
    supervised_contrast,
    uniformity,
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


OUTPUT = BottleneckOutput(
    standardised=randn(6, 10, seed=1),
    reconstruction=randn(6, 10, seed=2),
    code=randn(6, 4, seed=3),
    logit=randn(6, seed=4),
    mean=randn(6, 4, seed=5),
    log_variance=randn(6, 4, seed=6),
)
LABEL = torch.tensor([0, 1, 1, 0, 1, -1])


def test_divergence__equals_torch_distributions() -> None:
    mean, log_variance = randn(50, 4), 3 * randn(50, 4, seed=1)
    normal = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(normal, Normal(torch.zeros(4), torch.ones(4))).sum(1)

    torch.testing.assert_close(divergence(mean, log_variance), expected)
    assert (divergence(torch.zeros(1, 4), torch.zeros(1, 4)) == 0).all()


def test_loss__is_an_evidence_lower_bound() -> None:
    """With kl_weight w it is w / D times the negative bound for decoder variance w / 2."""
    weight = 0.6
    loss, _ = bottleneck_loss(OUTPUT, kl_weight=weight)
    decoder = Normal(OUTPUT.reconstruction, (weight / 2) ** 0.5)
    posterior = Normal(OUTPUT.mean, (OUTPUT.log_variance / 2).exp())
    prior = Normal(torch.zeros(4), torch.ones(4))
    bound = decoder.log_prob(OUTPUT.standardised).sum(1) - kl_divergence(posterior, prior).sum(1)
    offset = loss + bound * weight / 10

    torch.testing.assert_close(offset, offset[:1].expand(6))


def test_loss__adds_up_its_terms() -> None:
    loss, terms = bottleneck_loss(OUTPUT, LABEL, kl_weight=0.3, classify_weight=0.7)
    known = LABEL >= 0
    entropy = binary_cross_entropy_with_logits(
        OUTPUT.logit[known], LABEL[known].float(), reduction="none"
    )
    squared = (OUTPUT.reconstruction - OUTPUT.standardised).pow(2).mean(1)

    assert list(terms) == ["reconstruction", "kl", "classification"]
    torch.testing.assert_close(terms["reconstruction"], squared)
    expected = squared[known] + 0.3 * terms["kl"][known] + 0.7 * entropy
    torch.testing.assert_close(loss[known], expected)
    assert loss.isnan().tolist() == [False] * 5 + [True]


def test_loss__of_a_plain_autoencoder_is_its_error() -> None:
    loss, terms = bottleneck_loss(OUTPUT._replace(log_variance=None), kl_weight=1.0)

    assert list(terms) == ["reconstruction"]
    assert torch.equal(loss, terms["reconstruction"])


def test_loss__target_of_a_denoising_autoencoder_is_clean() -> None:
    model = Bottleneck(10, [], 10, noise=5.0)
    features = randn(64, 10)
    model(features)
    for layer in (model.encoder[0], model.decoder[0]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    model.normalise.freeze()
    loss, _ = bottleneck_loss(model(features))  # it answers 0, so its error is the target's size

    assert loss.mean().item() == pytest.approx(1.0, rel=1e-4)


def test_loss__classification_without_labels() -> None:
    with pytest.raises(ValueError, match="classify_weight needs labels"):
        bottleneck_loss(OUTPUT, classify_weight=1.0)


def test_cross_entropy__equals_the_formula_and_leaves_unknown_out() -> None:
    logit = torch.tensor([-2.0, 0.5, 3.0, 9.0], requires_grad=True)
    loss = cross_entropy(logit, torch.tensor([0, 1, 0, -1]))
    p = expit([-2.0, 0.5, 3.0])
    expected = -np.log([1 - p[0], p[1], 1 - p[2]])
    np.testing.assert_allclose(loss[:3].detach(), expected, rtol=1e-5)
    assert loss[3].isnan()
    loss[:3].sum().backward()
    np.testing.assert_allclose(logit.grad, [p[0], p[1] - 1, p[2], 0], rtol=1e-5)


def test_alignment_and_uniformity__equal_numpy() -> None:
    points = torch.nn.functional.normalize(randn(6, 10).double(), dim=1)
    label = np.array([0, 1, 1, 0, 1, 0])
    squared = pdist(points.numpy(), "sqeuclidean")
    same = pdist(label[:, None]) == 0
    found = alignment(points, torch.from_numpy(label)), uniformity(points)
    np.testing.assert_allclose(float(found[0]), squared[same].mean())
    np.testing.assert_allclose(float(found[1]), np.log(np.exp(-2 * squared).mean()))
    assert float(alignment(points[:2], torch.tensor([0, 1]))) == 0
    assert float(uniformity(points[:1])) == 0


def test_uniformity__has_a_gradient_where_points_coincide() -> None:
    points = torch.ones(3, 1, requires_grad=True)
    uniformity(points).backward()
    assert torch.isfinite(points.grad).all()


def test_disagreement__equals_torch_distributions() -> None:
    logit, other = 3 * randn(20), 3 * randn(20, seed=1)
    one, two = Bernoulli(logits=logit), Bernoulli(logits=other)
    expected = (kl_divergence(one, two) + kl_divergence(two, one)) / 2
    torch.testing.assert_close(disagreement(logit, other), expected)


def test_contrast__by_numpy() -> None:
    representation, label = randn(7, 3), torch.tensor([0, 1, 1, 0, 1, 2, 0])
    unit = representation.numpy().astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        total = sum(np.exp(unit[i] @ unit[j] / 0.2) for j in others)
        alike = [j for j in others if label[j] == label[i]]
        shares = [np.log(np.exp(unit[i] @ unit[j] / 0.2) / total) for j in alike]
        expected.append(-np.mean(shares) if shares else 0.0)

    found = supervised_contrast(representation, label, temperature=0.2)

    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


def test_contrast__of_one_image_has_no_gradient() -> None:
    alone = randn(1, 3).requires_grad_()

    supervised_contrast(alone, torch.tensor([1])).sum().backward()

    assert (alone.grad == 0).all()
