import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchvision.transforms.v2 import functional

from dfl.data.images.crops import RandomCrop
from dfl.data.images.transforms import (
    JPEG,
    Augmentation,
    ColorJitter,
    Degrade,
    GaussianBlur,
    GaussianNoise,
    HorizontalFlip,
    Kernel,
    OneOf,
    Resample,
    UnsharpMask,
    WebP,
    WithDegraded,
)
from dfl.errors import ConfigError, ImageError
from dfl.recipe import build, describe


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


@pytest.mark.parametrize("quality", [10, 80])
def test_webp__as_pillow(image: Tensor, quality: int) -> None:
    stream = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, "WEBP", quality=quality)
    expected = np.array(Image.open(stream)).transpose(2, 0, 1)
    assert np.array_equal(WebP(quality)(image).numpy(), expected)


@pytest.mark.parametrize(("sigma", "amount"), [(0.8, 0.5), (2.0, 1.5)])
def test_unsharp_mask__adds_what_scipys_blur_takes_away(
    image: Tensor, sigma: float, amount: float
) -> None:
    values = image.numpy().astype(float)
    blurred = np.stack([gaussian_filter(plane, sigma, mode="mirror") for plane in values])
    expected = (values + amount * (values - blurred)).clip(0, 255)
    result = UnsharpMask(sigma, amount)(image).numpy()
    assert np.abs(result - expected).max() <= 0.51
    assert torch.equal(UnsharpMask(sigma, 0.0)(image), image)


def test_gaussian_noise__has_the_deviation_asked_for() -> None:
    grey = torch.full((3, 200, 200), 128, dtype=torch.uint8)
    torch.manual_seed(0)
    added = GaussianNoise(5.0)(grey).double() - 128
    assert abs(float(added.mean())) < 0.1
    # rounding to levels adds the variance of a uniform error
    assert float(added.std()) == pytest.approx((25 + 1 / 12) ** 0.5, rel=0.02)
    assert float(added[:, :, :-1].flatten() @ added[:, :, 1:].flatten()) / added.numel() < 0.5
    assert torch.equal(GaussianNoise(0.0)(grey), grey)
    assert GaussianNoise(5.0).is_random
    assert not GaussianNoise(0.0).is_random


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5."""
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


SHAPES: dict[Kernel, Callable[[np.ndarray], np.ndarray]] = {
    "area": lambda x: (x <= 0.5).astype(float),
    "bilinear": lambda x: np.maximum(1 - x, 0),
    "bicubic": _cubic,
    "lanczos": lambda x: np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0.0),
}
"""Weight of a pixel by its distance, in pixels of the coarser of the two grids."""


def _weights(kernel: Kernel, old: int, new: int) -> np.ndarray:
    """What each old pixel of a row weighs in each new one, ``(new, old)``."""
    step = old / new
    centre, place = (np.arange(new) + 0.5) * step, np.arange(old) + 0.5
    if kernel == "nearest":
        return (np.floor(centre)[:, None] == np.arange(old)).astype(float)
    weights = SHAPES[kernel](np.abs(place - centre[:, None]) / max(1.0, step))
    return weights / weights.sum(axis=1, keepdims=True)


def _by_formula(kernel: Kernel, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """One side after the other, to 8 bit after each."""
    rows = (pixels.astype(float) @ _weights(kernel, pixels.shape[2], width).T).round().clip(0, 255)
    return (_weights(kernel, pixels.shape[1], height) @ rows).round().clip(0, 255)


@pytest.mark.parametrize(
    ("kernel", "scale"),
    [
        *[(kernel, 0.5) for kernel in ("nearest", *SHAPES)],
        *[(kernel, 1.25) for kernel in ("bilinear", "bicubic", "lanczos")],  # the others have ties
    ],
)
def test_resample__as_by_its_kernels_formula(image: Tensor, kernel: Kernel, scale: float) -> None:
    height, width = (round(scale * side) for side in image.shape[1:])
    smaller = Resample(scale, kernel, keep_size=False)(image).numpy()
    assert smaller.shape == (3, height, width)
    assert np.abs(smaller - _by_formula(kernel, image.numpy(), height, width)).max() <= 2
    kept = Resample(scale, kernel)(image).numpy()
    assert np.abs(kept - _by_formula(kernel, smaller, 40, 52)).max() <= 2


def test_resample__kernels_are_drawn_for_each_way(image: Tensor) -> None:
    torch.manual_seed(0)
    resample = Resample(0.5, ["nearest", "area"])
    assert resample.is_random
    assert not Resample(0.5, "area").is_random
    drawn = {tuple(resample(image)[0, 0].tolist()) for _ in range(40)}
    half = {kernel: Resample(0.5, kernel, keep_size=False)(image) for kernel in ("nearest", "area")}
    # twice as large again, both of them repeat pixels
    assert drawn == {tuple(half[kernel][0, 0].repeat_interleave(2).tolist()) for kernel in half}
    assert Resample(0.001, keep_size=False)(image).shape == (3, 1, 1)


def test_one_of__each_as_often(image: Tensor) -> None:
    torch.manual_seed(0)
    black, white = ColorJitter(brightness=0.0), ColorJitter(brightness=1.0)
    either = OneOf([black, white, HorizontalFlip(1.0)], p=0.9)
    found = [either(image) for _ in range(2000)]
    turned = sum(torch.equal(each, image.flip(-1)) for each in found)
    darkened = sum(not each.any() for each in found)
    assert turned / 2000 == pytest.approx(0.3, abs=0.03)
    assert darkened / 2000 == pytest.approx(0.3, abs=0.03)
    assert either.is_random
    assert not OneOf([black]).is_random
    assert OneOf([black], p=0.5).is_random


def test_degrade__is_its_steps_in_turn(image: Tensor) -> None:
    def sure(**settings: float) -> Degrade:
        never = dict.fromkeys(("p_resample", "p_filter", "p_noise", "p_compress"), 0.0)
        return Degrade(**{**never, **settings})

    torch.manual_seed(3)
    assert torch.equal(sure()(image), image)
    assert Degrade().is_random
    torch.manual_seed(3)
    found = sure(p_resample=1.0, p_noise=1.0)(image)
    torch.manual_seed(3)
    resampled = Resample((0.5, 1.5))(image)
    _ = torch.rand(())  # whether it is blurred or sharpened
    assert torch.equal(found, GaussianNoise((1.0, 8.0))(resampled))
    torch.manual_seed(0)
    results = {tuple(Degrade()(image)[0, 0, :9].tolist()) for _ in range(20)}
    assert len(results) > 15


@pytest.mark.parametrize(
    "augmentation",
    [
        Degrade(noise=(0.0, 2.0), quality=80),
        OneOf([JPEG((50, 90)), Resample(kernel=["area", "lanczos"], keep_size=False)], p=0.5),
    ],
    ids=lambda augmentation: type(augmentation).__name__,
)
def test_degradations__are_built_again_from_their_description(augmentation: Augmentation) -> None:
    again = build(describe(augmentation))
    assert describe(again) == describe(augmentation)
    assert again.is_random  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "augmentation",
    [
        UnsharpMask((0.5, 2.0), (0.1, 1.0)),
        GaussianNoise((1.0, 5.0)),
        Resample(),
        WebP((30, 90)),
        OneOf([JPEG((30, 90)), WebP((30, 90))]),
        Degrade(),
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
        (lambda: Resample(0.0), r"scale: must be above 0, got 0\.0"),
        (lambda: Resample(kernel="sinc"), "kernel: name one or several of nearest, area, .* sinc"),
        (lambda: Resample(kernel=[]), r"kernel: name one or several of .* got \[\]"),
        (lambda: OneOf([]), "transforms: none to draw from"),
        (lambda: Degrade(p_noise=2.0), r"p: a probability must be in \[0, 1\], got 2\.0"),
    ],
)
def test_settings__out_of_range(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_codecs__what_is_too_large_for_one_is_an_error() -> None:
    with pytest.raises(ImageError, match="70000 x 2 pixels cannot be a JPEG"):
        JPEG(80)(torch.zeros(3, 2, 70_000, dtype=torch.uint8))
    with pytest.raises(ImageError, match="2 x 17000 pixels cannot be a WebP"):
        WebP(80)(torch.zeros(3, 17_000, 2, dtype=torch.uint8))


def test_with_degraded__both_views_and_one_crop(image: Tensor) -> None:
    view = WithDegraded([GaussianBlur(1.0), JPEG(60)])
    clean, degraded = view(image)
    assert torch.equal(clean, image)
    assert torch.equal(degraded, JPEG(60)(GaussianBlur(1.0)(image)))
    assert not view.is_random
    assert WithDegraded([Degrade()]).is_random
    again = build(describe(view))
    assert torch.equal(again(image), view(image))
    torch.manual_seed(0)
    cut = RandomCrop(16)(torch.stack([image, image]))
    assert torch.equal(cut[0], cut[1])


def test_with_degraded__mistakes(image: Tensor) -> None:
    with pytest.raises(ConfigError, match="none to degrade an image by; name at least one"):
        WithDegraded([])
    with pytest.raises(ConfigError, match=r"the degraded image has the shape .*keep_size: true"):
        WithDegraded([Resample(0.5, keep_size=False)])(image)
