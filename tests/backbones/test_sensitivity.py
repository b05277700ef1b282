import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dfl.backbones import Backbone, FusedBackbone, PixelStatistics, Sensitivity, TimmBackbone
from dfl.backbones.runner import Runner
from dfl.errors import BackboneError
from dfl.recipe import build, describe

LAYERS = ["pooled", "block1.cls"]


@pytest.fixture(scope="module")
def network() -> Backbone:
    torch.manual_seed(0)
    return TimmBackbone("test_vit", LAYERS, pretrained=False, input_size=32)


def pictures(count: int = 3, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def test_forward__by_two_passes(network: Backbone) -> None:
    """In float64, of a noise that is drawn here."""
    sensitivity = Sensitivity(network, sigma=0.2, draws=2, seed=5)
    image = pictures()
    drawn = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    normalised = network._preprocess(image)
    with torch.no_grad():
        still = network.encode(normalised)
        moved = [network.encode(normalised + 0.2 * noise) for noise in drawn]

    found = sensitivity(image)

    assert list(found) == LAYERS
    for name in LAYERS:
        of_draws = []
        for other in moved:
            first, second = still[name].double().numpy(), other[name].double().numpy()
            lengths = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
            cosine = (first * second).sum(axis=1) / (lengths[0] * lengths[1])
            relative = np.linalg.norm(first - second, axis=1) / lengths[0]
            of_draws.append(np.log(np.stack([1 - cosine, relative], axis=1)))
        assert_allclose(found[name].numpy(), np.mean(of_draws, axis=0), atol=1e-3)


def test_forward__more_noise_moves_more(network: Backbone) -> None:
    faint, strong = (Sensitivity(network, sigma=sigma)(pictures()) for sigma in (0.01, 0.1))
    for name in LAYERS:
        assert (strong[name] > faint[name] + 1).all()


def test_forward__an_image_does_not_depend_on_its_batch(network: Backbone) -> None:
    sensitivity, image = Sensitivity(network), pictures(side=40)
    together = sensitivity(image)
    for name in LAYERS:
        alone = torch.cat([sensitivity(each[None])[name] for each in image])
        torch.testing.assert_close(together[name], alone, rtol=0, atol=1e-3)


def test_spec__says_what_decides_the_values(network: Backbone) -> None:
    first = Sensitivity(network).spec("floor")
    assert [(layer.name, layer.dim) for layer in first] == [
        ("floor.pooled", 2),
        ("floor.block1.cls", 2),
    ]
    others = [Sensitivity(network, seed=1), Sensitivity(network, sigma=0.1), network]
    found = {first[0].fingerprint, *(each.fingerprint("pooled") for each in others)}
    assert len(found) == 4
    assert Sensitivity(network, ["pooled"]).spec("floor") == first[:1]


def test_recipe__holds_that_of_the_network(network: Backbone) -> None:
    recipe = describe(Sensitivity(network, ["pooled"], sigma=0.1, draws=1, seed=2))
    again = build(recipe)
    assert isinstance(again, Sensitivity)
    assert describe(again) == recipe


def test_runner__casts_the_network_once() -> None:
    both = FusedBackbone(
        {"floor": Sensitivity(TimmBackbone("test_vit", pretrained=False, input_size=32))}
    )
    with Runner(both, precision="bf16-true") as runner:
        found = runner.submit("floor", pictures()).result()
    assert torch.isfinite(found["floor.pooled"]).all()
    assert {name for name in both.state_dict() if ".network." not in name} == set()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sigma": 0.0}, "sigma is 0.0 and draws 3; sigma must be above 0"),
        ({"draws": 0}, "draws 0; .* at least 1"),
        ({"layers": ["head"]}, r"layers \['head'\]: the backbone gives pooled, block1.cls"),
    ],
)
def test_init__refuses(network: Backbone, options: dict, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        Sensitivity(network, **options)


def test_init__statistics_have_no_network() -> None:
    with pytest.raises(BackboneError, match="counts pixels"):
        Sensitivity(PixelStatistics())
