import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.fft import dctn
from scipy.signal import correlate2d

from dfl.backbones import Backbone, FusedBackbone, PixelStatistics
from dfl.backbones.runner import Runner
from dfl.errors import BackboneError
from dfl.recipe import build, describe

FIRST, SECOND, THIRD = [[-1, 1]], [[1, -2, 1]], [[1, -3, 3, -1]]
SQUARE = np.outer([1, -2, 1], [-1, 2, -1])
LARGE = np.array(
    [
        [-1, 2, -2, 2, -1],
        [2, -6, 8, -6, 2],
        [-2, 8, -12, 8, -2],
        [2, -6, 8, -6, 2],
        [-1, 2, -2, 2, -1],
    ]
)


def scenes(count: int = 2, height: int = 37, width: int = 50) -> np.ndarray:
    """Ramps with noise, some of it cut off at white: residuals of all sizes."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(20, 270, width) + 30 * rng.random((count, 3, 1, 1))
    noise = rng.normal(size=(count, 3, height, width)) * np.array([1, 4, 12]).reshape(3, 1, 1)
    return (ramp + noise).clip(0, 255).astype(np.uint8)


def log_share(count: float, total: int) -> float:
    return np.log((count + 0.5) / (total + 1))


def size_shares(values: np.ndarray) -> list[float]:
    """Of values in their unit."""
    size = np.abs(np.ravel(values))
    counts = [np.sum(size == 0), *(np.sum(size >= 2**power) for power in range(6))]
    return [log_share(count, len(size)) for count in counts]


def pair_shares(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Of pairs of values in their unit, sorted by the smallest pair that counts as the same."""
    shares: dict[tuple[int, int], int] = {}
    for a in range(-2, 3):
        for b in range(-2, 3):
            shares[min((a, b), (b, a), (-a, -b), (-b, -a))] = 0
    firsts, seconds = (
        np.concatenate([np.ravel(pair[side]) for pair in pairs]).round().clip(-2, 2).astype(int)
        for side in (0, 1)
    )
    found, counts = np.unique(np.stack([firsts, seconds]), axis=1, return_counts=True)
    for a, b, count in zip(*found, counts, strict=True):
        shares[min((a, b), (b, a), (-a, -b), (-b, -a))] += count
    total = counts.sum()
    return [log_share(count, total) for _, count in sorted(shares.items())]


def residual_reference(channel: np.ndarray) -> list[float]:
    values = []
    for kernel, unit in ((FIRST, 1), (SECOND, 2), (THIRD, 3), (SQUARE, 4), (LARGE, 12)):
        kernel = np.array(kernel)
        both = [kernel] if kernel.shape[0] == kernel.shape[1] else [kernel, kernel.T]
        maps = [correlate2d(channel.astype(float), each, "valid") / unit for each in both]
        pairs = [(m[:, :-1], m[:, 1:]) for m in maps] + [(m[:-1], m[1:]) for m in maps]
        values += size_shares(np.concatenate([m.ravel() for m in maps])) + pair_shares(pairs)
    return values


def differences_reference(channel: np.ndarray) -> list[float]:
    """From the map of the paper, of which the upper left of each cell is 0."""
    height, width = ((side - 1) // 2 * 2 for side in channel.shape)
    places = []
    for top in (0, 1):
        for left in (0, 1):
            cells = channel[top : top + height, left : left + width].astype(float)
            relation = cells - cells[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
            assert not relation[::2, ::2].any()
            right, below, across = relation[::2, 1::2], relation[1::2, ::2], relation[1::2, 1::2]
            sizes = [share for each in (right, below, across) for share in size_shares(each)]
            places.append(sizes + pair_shares([(right, below)]))
    return [*np.mean(places, axis=0), *np.ptp(places, axis=0)]


def dct_reference(channel: np.ndarray) -> list[float]:
    rows, columns = (side // 8 for side in channel.shape)
    energies = [
        np.log(
            dctn(channel[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].astype(float), norm="ortho") ** 2
            + 1 / 12
        ).ravel()[1:]
        for i in range(rows)
        for j in range(columns)
    ]
    return [*np.mean(energies, axis=0), *np.std(energies, axis=0)]


@pytest.mark.parametrize(
    ("layer", "reference"),
    [
        ("residual", residual_reference),
        ("differences", differences_reference),
        ("dct", dct_reference),
    ],
)
def test_forward__by_scipy(layer, reference) -> None:
    images = scenes()
    expected = [[value for channel in image for value in reference(channel)] for image in images]

    found = PixelStatistics([layer])(torch.from_numpy(images))[layer]

    assert found.dtype == torch.float32
    assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_forward__an_image_does_not_depend_on_its_batch() -> None:
    images = torch.from_numpy(scenes(5))
    statistics = PixelStatistics()
    together = statistics(images)
    for layer in statistics.layers:
        alone = torch.cat([statistics(image[None])[layer] for image in images])
        torch.testing.assert_close(together[layer], alone, rtol=0, atol=1e-6)


def test_forward__any_size_as_it_is_and_the_mean_over_crops() -> None:
    images = torch.from_numpy(scenes(4, 24, 40))
    statistics = PixelStatistics(["dct", "residual"])
    single, crops = statistics(images), statistics(images.reshape(2, 2, 3, 24, 40))
    for layer in statistics.layers:
        expected = single[layer].reshape(2, 2, -1).mean(dim=1)
        torch.testing.assert_close(crops[layer], expected)


def test_forward__does_not_see_how_bright_an_image_is() -> None:
    images = torch.from_numpy(scenes()) // 2
    statistics = PixelStatistics()
    dark, bright = statistics(images), statistics(images + 60)
    for layer in statistics.layers:
        torch.testing.assert_close(dark[layer], bright[layer], rtol=1e-4, atol=1e-4)


def test_forward__sees_upsampling_in_the_ranges_of_the_differences() -> None:
    image = torch.from_numpy(scenes(1, 32, 32))
    doubled = image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    statistics = PixelStatistics(["differences"])
    plain, upsampled = (
        statistics(each)["differences"].reshape(3, 2, 30)[:, 1] for each in (image, doubled)
    )
    assert (upsampled[:, 0] > plain[:, 0] + 1).all()  # equal to the right


def test_forward__black() -> None:
    features = PixelStatistics()(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    assert all(torch.isfinite(value).all() for value in features.values())


def test_forward__too_small() -> None:
    with pytest.raises(BackboneError, match=r"40x15 px has too few .* crop 16 px at least"):
        PixelStatistics()(torch.zeros(1, 3, 15, 40, dtype=torch.uint8))


@pytest.mark.parametrize("layers", [[], ["pooled"], ["dct", "dct"]])
def test_init__layers(layers: list[str]) -> None:
    with pytest.raises(BackboneError, match="it offers residual, differences, dct, each once"):
        PixelStatistics(layers)


def test_runner__float32_on_any_engine() -> None:
    images = torch.from_numpy(scenes(3, 32, 32))
    expected = FusedBackbone({"noise": PixelStatistics()})(images)
    for precision, engine in (("bf16-true", "eager"), ("bf16-mixed", "compile")):
        fused = FusedBackbone({"noise": PixelStatistics()})
        with Runner(fused, precision=precision, engine=engine) as runner:
            found = runner.submit("noise", images).result()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_recipe__builds_the_same_backbone() -> None:
    first = PixelStatistics(["dct", "residual"])
    again = build(describe(first))
    assert isinstance(again, Backbone)
    assert again.spec("noise") == first.spec("noise")
    assert [(layer.name, layer.dim) for layer in first.spec("noise")] == [
        ("noise.dct", 378),
        ("noise.residual", 240),
    ]


@pytest.mark.gpu
def test_forward__a_gpu_counts_the_same() -> None:
    images = torch.from_numpy(scenes(3, 64, 64))
    statistics = PixelStatistics()
    expected = statistics(images)
    found = statistics.to("cuda")(images.to("cuda"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name].cpu(), value, rtol=1e-5, atol=1e-5)
