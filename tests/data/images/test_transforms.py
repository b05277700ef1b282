import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchvision.transforms.v2 import functional

from dfl.data.images.transforms import JPEG, Augmentation, ColorJitter, GaussianBlur, HorizontalFlip
from dfl.errors import ConfigError, ImageError


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 52), dtype=np.uint8))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_blur__as_scipy(image: Tensor, sigma: float) -> None:
    expected = [
        gaussian_filter(plane.astype(float), sigma, mode="mirror") for plane in image.numpy()
    ]
    result = GaussianBlur(sigma)(image)
    assert result.dtype == torch.uint8
    assert np.abs(result.numpy() - np.stack(expected)).max() <= 0.51


def test_blur__nothing_at_zero_and_small_images(image: Tensor) -> None:
    assert torch.equal(GaussianBlur(0.0)(image), image)
    assert GaussianBlur(9.0)(image[:, :3, :2]).shape == (3, 3, 2)
    assert torch.equal(GaussianBlur(9.0)(image[:, :1, :1]), image[:, :1, :1])


@pytest.mark.parametrize(
    ("setting", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
def test_color_jitter__fixed_factor_as_pillow(
    image: Tensor, setting: str, enhance: type, factor: float
) -> None:
    expected = np.array(enhance(Image.fromarray(image.permute(1, 2, 0).numpy())).enhance(factor))
    result = ColorJitter(**{setting: factor})(image).permute(1, 2, 0).numpy()
    assert np.abs(result.astype(int) - expected.astype(int)).max() <= 2


def test_color_jitter__hue_turns_red_into_green() -> None:
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).reshape(3, 1, 1)
    assert ColorJitter(hue=1 / 3)(red).flatten().tolist() == pytest.approx([0, 200, 0], abs=2)


# Deprecated since torchvision 0.29, but an implementation of its own as long as it is there.
@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
@pytest.mark.parametrize("quality", [10, 75, 100])
def test_jpeg__as_torchvision(image: Tensor, quality: int) -> None:
    expected = functional.jpeg(image, quality)
    result = JPEG(quality)(image)
    assert result.shape == image.shape
    assert (result.int() - expected.int()).abs().float().mean() < 0.5
    assert not torch.equal(result, image)


@pytest.mark.parametrize(
    "augmentation",
    [
        GaussianBlur((0.1, 2.0)),
        ColorJitter((0.5, 1.5), (0.5, 1.5), (0.5, 1.5), (-0.1, 0.1)),
        JPEG((30, 90)),
        HorizontalFlip(),
    ],
    ids=lambda augmentation: type(augmentation).__name__,
)
def test_ranges__are_drawn_from_torch(image: Tensor, augmentation: Augmentation) -> None:
    def results(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return [augmentation(image) for _ in range(6)]

    first, again, other = results(0), results(0), results(1)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
    views = torch.stack([image, image])
    assert augmentation(views).shape == views.shape
    assert augmentation(views).dtype == torch.uint8


def test_jpeg__both_ends_of_the_range_are_drawn(image: Tensor) -> None:
    torch.manual_seed(0)
    drawn = {tuple(JPEG((1, 3))(image)[:, 0, :9].flatten().tolist()) for _ in range(60)}
    assert drawn == {tuple(JPEG(q)(image)[:, 0, :9].flatten().tolist()) for q in (1, 2, 3)}


def test_probability__is_kept(image: Tensor) -> None:
    torch.manual_seed(0)
    flipped = sum(not torch.equal(HorizontalFlip(0.25)(image), image) for _ in range(2000))
    assert flipped / 2000 == pytest.approx(0.25, abs=0.03)
    assert torch.equal(HorizontalFlip(0.0)(image), image)
    assert torch.equal(HorizontalFlip(1.0)(image), image.flip(-1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianBlur(-1.0), "sigma: must be a number at least 0, or a range"),
        (lambda: GaussianBlur((2.0, 1.0)), r"sigma: .* got \(2\.0, 1\.0\)"),
        (lambda: GaussianBlur(1.0, p=1.5), r"p: a probability must be in \[0, 1\], got 1\.5"),
        (lambda: ColorJitter(brightness=-0.1), "brightness: must be a number at least 0"),
        (lambda: ColorJitter(hue=(-0.6, 0.1)), r"hue: must be a number in \[-0\.5, 0\.5\]"),
        (lambda: JPEG(0), r"quality: must be a number in \[1, 100\]"),
        (lambda: JPEG((50, 101)), "quality: must be"),
        (lambda: GaussianBlur(float("nan")), "sigma: must be"),
    ],
)
def test_settings__out_of_range(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_jpeg__what_is_too_large_for_one_is_an_error() -> None:
    with pytest.raises(ImageError, match="70000 x 2 pixels cannot be a JPEG"):
        JPEG(80)(torch.zeros(3, 2, 70_000, dtype=torch.uint8))
