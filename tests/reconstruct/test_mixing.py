import numpy as np
import pytest
import torch

from dfl.errors import ConfigError
from dfl.reconstruct.mixing import Draw, Mixing


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randint(0, 256, (3, 20, 31), dtype=torch.uint8, generator=generator)  # noqa: E731
    return draw(), draw()


def test_draw__follows_from_seed_name_and_path_alone() -> None:
    mixing = Mixing(pixels=0.5, bands=0.5, patches=0.5)
    said = {
        (seed, name, path): str(mixing.draw(seed, name, path, 64, 64))
        for seed in (0, 1)
        for name in ("a", "b")
        for path in (f"{n}.png" for n in range(40))
    }
    assert len(set(said.values())) > 80
    assert str(mixing.draw(1, "b", "7.png", 64, 64)) == said[1, "b", "7.png"]


def test_draw__as_often_as_asked_and_in_the_range() -> None:
    mixing = Mixing(pixels=0.3, share=(0.1, 0.4), bands=0.0, patches=1.0, patch=8)
    draws = [mixing.draw(0, "a", str(n), 30, 17) for n in range(500)]
    shares = [draw.share for draw in draws if draw.share]
    assert 0.25 < len(shares) / 500 < 0.35
    assert 0.1 <= min(shares) < 0.12 < 0.38 < max(shares) <= 0.4
    assert all(draw.band is None for draw in draws)
    assert {draw.patches.shape for draw in draws if draw.patches is not None} == {(4, 3)}


def test_draw__a_probability_changes_no_other_draw() -> None:
    one, other = Mixing(pixels=1.0, bands=0.0), Mixing(pixels=1.0, bands=1.0, patches=1.0)
    assert one.draw(0, "a", "x", 9, 9).share == other.draw(0, "a", "x", 9, 9).share


def test_mix__in_pixels(images) -> None:
    copy, real = images
    mixed = Mixing().mix(copy, real, Draw(None, 0.25, None))
    expected = np.rint(0.75 * copy.numpy().astype(float) + 0.25 * real.numpy())
    assert np.abs(mixed.numpy() - expected).max() <= 1  # a half may be rounded either way


def test_mix__band_of_frequencies(images) -> None:
    """What is in the band is the photograph's, all else the copy's."""
    copy, real = (image.float() * 0.3 + 90 for image in images)  # nothing is clipped
    mixed = Mixing().mix(copy.byte(), real.byte(), Draw((0.2, 0.5), 0.0, None)).numpy()
    spectra = [np.fft.fft2(np.asarray(each, float)) for each in (mixed, copy.byte(), real.byte())]
    down, across = np.meshgrid(np.fft.fftfreq(20), np.fft.fftfreq(31), indexing="ij")
    radius = np.hypot(down, across) / np.sqrt(0.5)
    inside = (radius >= 0.2) & (radius <= 0.5)
    expected = np.where(inside, spectra[2], spectra[1])
    # rounding to 8 bits adds noise of a twelfth of a grey value squared
    assert np.abs(spectra[0] - expected).max() < 5 * np.sqrt(20 * 31 / 12)
    assert np.abs(spectra[1] - spectra[2]).max() > 1000


def test_mix__by_patches(images) -> None:
    copy, real = images
    patches = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.uint8)
    mixed = Mixing(patch=8).mix(copy[:, :, :16], real[:, :, :16], Draw(None, 0.0, patches))
    for row in range(3):
        for column in range(2):
            place = (slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            expected = copy if patches[row, column] else real
            assert torch.equal(mixed[place], expected[:, :, :16][place])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pixels": 1.5}, "mixing.pixels: a probability"),
        ({"share": (0.5, 0.2)}, "mixing.share: must be a range"),
        ({"patch": 0}, "mixing.patch: must be at least 1"),
    ],
)
def test_mixing__refuses(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Mixing(**settings)
