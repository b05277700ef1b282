import pytest
import torch
from torch import nn

from dfl.heads.modules.bottleneck import Bottleneck
from dfl.heads.modules.losses import bottleneck_loss

FEATURES = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))


def test_bottleneck__shapes() -> None:
    model = Bottleneck(12, [8, 6], 3)
    output = model(FEATURES)
    assert output.standardised.shape == output.reconstruction.shape == (64, 12)
    assert output.code.shape == output.mean.shape == (64, 3)
    assert output.log_variance is None
    assert output.logit.shape == (64,)
    torch.testing.assert_close(model.eval().encode(FEATURES), model(FEATURES).code)


@pytest.mark.parametrize("tied", [False, True])
def test_bottleneck__linear_autoencoder_reaches_pca(tied: bool) -> None:
    """With no hidden layer, the optimum is the span of the principal components (Baldi 1989)."""
    torch.manual_seed(0)
    features = FEATURES @ torch.randn(12, 12)
    model = Bottleneck(12, [], 4, tied=tied)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model(features)
    model.normalise.freeze()
    for _ in range(1000):
        output = model(features)
        loss = (output.reconstruction - output.standardised).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    standardised = model(features).standardised.detach()
    singular = torch.linalg.svdvals(standardised - standardised.mean(0))
    optimum = singular[4:].square().sum() / standardised.numel()
    torch.testing.assert_close(loss.detach(), optimum, rtol=0.02, atol=0)


def test_tied__decodes_with_the_transposed_weights() -> None:
    model = Bottleneck(12, [8, 6], 3, tied=True).eval()
    output = model(FEATURES)
    first, second, last = (model.encoder[i].weight.data for i in (0, 2, 4))
    biases = [torch.randn(width) for width in (6, 8, 12)]
    for own, bias in zip(model.decoder.parameters(), biases, strict=True):
        own.data = bias
    hidden = nn.functional.gelu(output.code @ last + biases[0])
    hidden = nn.functional.gelu(hidden @ second + biases[1])
    expected = hidden @ first + biases[2]

    torch.testing.assert_close(model(FEATURES).reconstruction, expected)
    assert not [name for name in model.state_dict() if "decoder" in name and "bias" not in name]


def test_noise__is_on_the_input_alone_and_in_training_alone() -> None:
    model = Bottleneck(12, [], 12, noise=0.5)
    model(FEATURES)
    model.normalise.freeze()
    nn.init.eye_(model.encoder[0].weight)
    nn.init.zeros_(model.encoder[0].bias)
    clean = model.eval()(FEATURES)
    noisy = [model.train()(FEATURES) for _ in range(40)]

    torch.testing.assert_close(clean.code, clean.standardised)
    assert all(torch.equal(output.standardised, clean.standardised) for output in noisy)
    added = torch.stack([output.code - clean.standardised for output in noisy])
    assert added.std().item() == pytest.approx(0.5, rel=0.02)
    assert added.mean().item() == pytest.approx(0, abs=0.01)


def test_variational__draws_in_training_alone() -> None:
    torch.manual_seed(0)
    model = Bottleneck(12, [8], 3, variational=True)
    model(FEATURES)
    model.normalise.freeze()
    still = model.eval()(FEATURES)
    draws = torch.stack([model.train()(FEATURES).code for _ in range(2000)])

    assert torch.equal(still.code, still.mean)
    torch.testing.assert_close(model.encode(FEATURES), still.mean)
    torch.testing.assert_close(draws.mean(0), still.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(draws.var(0), still.log_variance.exp(), rtol=0.15, atol=0)


@pytest.mark.parametrize(
    "kind", [{}, {"tied": True}, {"variational": True}, {"tied": True, "variational": True}]
)
@pytest.mark.parametrize("hidden", [[], [8]])
def test_every_parameter_gets_a_gradient(kind: dict, hidden: list[int]) -> None:
    model = Bottleneck(12, hidden, 3, noise=0.1, **kind)
    weights = {"kl_weight": 1.0 if "variational" in kind else 0.0, "classify_weight": 1.0}
    loss, _ = bottleneck_loss(model(FEATURES), torch.arange(64) % 2, **weights)
    loss.mean().backward()

    assert not [name for name, value in model.named_parameters() if value.grad is None]
