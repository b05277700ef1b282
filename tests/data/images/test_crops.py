import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dfl.data.images.crops import (
    CenterCrop,
    Crop,
    MultiCrop,
    MultiScale,
    RandomCrop,
    Resize,
    Squash,
    TexturedCrops,
)
from dfl.errors import ConfigError

SIZES = [(60, 90), (91, 64), (64, 64), (33, 40), (300, 31), (224, 225)]  # height, width


def smooth(height: int, width: int) -> Tensor:
    """A photograph-like image: noise of a few pixels, with edges."""
    rng = np.random.default_rng(height * 1000 + width)
    small = Image.fromarray(
        rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    )
    return torch.from_numpy(np.array(small.resize((width, height)))).permute(2, 0, 1).contiguous()


def numbered(height: int, width: int) -> Tensor:
    values = torch.arange(height * width) % 251
    return values.to(torch.uint8).reshape(1, height, width).expand(3, -1, -1).contiguous()


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", [32, 48, 100])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resize__as_pillow_with_clips_convention(height: int, width: int, size: int) -> None:
    image = smooth(height, width)
    long = int(size * max(height, width) / min(height, width))
    new = (size, long) if width < height else (long, size)
    resized = np.array(pil(image).resize(new, Image.Resampling.BICUBIC)).astype(int)
    top, left = (round((side - size) / 2) for side in resized.shape[:2])
    expected = resized[top : top + size, left : left + size]
    result = Resize(size)(image)
    assert result.shape == (3, size, size)
    assert result.dtype == torch.uint8
    difference = np.abs(result.permute(1, 2, 0).numpy().astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.3


def test_resize__extreme_aspect_ratio_needs_no_memory() -> None:
    assert Resize(224)(numbered(1, 60_000)).shape == (3, 224, 224)
    assert Resize(224)(numbered(60_000, 2)).shape == (3, 224, 224)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_squash__as_pillow(height: int, width: int) -> None:
    image = smooth(height, width)
    expected = np.array(pil(image).resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
    difference = Squash(48)(image).permute(1, 2, 0).numpy().astype(int) - expected
    assert np.abs(difference).max() <= 2
    assert np.abs(difference).mean() < 0.3


@pytest.mark.parametrize(("height", "width"), [(20, 31), (16, 16), (17, 16)])
def test_center_crop__takes_pixels_from_the_middle(height: int, width: int) -> None:
    image = smooth(height, width)
    top, left = round((height - 16) / 2), round((width - 16) / 2)
    assert torch.equal(CenterCrop(16)(image), image[:, top : top + 16, left : left + 16])


@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 3), (2, 40), (40, 2)])
def test_center_crop__continues_a_small_image_by_reflection(height: int, width: int) -> None:
    image = smooth(height, width)
    margins = [(max(0, 16 - side) // 2, (max(0, 16 - side) + 1) // 2) for side in (height, width)]
    padded = np.pad(image.numpy(), [(0, 0), *margins], mode="reflect")
    top, left = (round((side - 16) / 2) for side in padded.shape[1:])
    expected = padded[:, top : top + 16, left : left + 16]
    assert np.array_equal(CenterCrop(16)(image).numpy(), expected)


def test_random_crop__covers_all_places_and_follows_the_seed() -> None:
    image = numbered(10, 11)
    torch.manual_seed(0)
    corners = {int(RandomCrop(8)(image)[0, 0, 0]) for _ in range(300)}
    assert corners == {row * 11 + column for row in range(3) for column in range(4)}
    torch.manual_seed(5)
    first = RandomCrop(8)(image)
    torch.manual_seed(5)
    assert torch.equal(RandomCrop(8)(image), first)
    assert RandomCrop(16)(image).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("count", "places"),
    [
        (4, [(0, 0), (0, 12), (10, 0), (10, 12)]),
        (5, [(0, 0), (0, 12), (10, 0), (10, 12), (5, 6)]),
        (9, [(row, column) for row in (0, 5, 10) for column in (0, 6, 12)]),
    ],
)
def test_multi_crop__places(count: int, places: list[tuple[int, int]]) -> None:
    image = smooth(18, 20)
    result = MultiCrop(8, count)(image)  # type: ignore[arg-type]
    expected = [image[:, top : top + 8, left : left + 8] for top, left in places]
    assert torch.equal(result, torch.stack(expected))
    assert MultiCrop(32, count)(image).shape == (count, 3, 32, 32)  # type: ignore[arg-type]


def test_textured_crops__those_with_the_largest_gradients() -> None:
    """A grid of 3 x 2 covers the image; each of its squares is noise of another strength."""
    rng = np.random.default_rng(0)
    strength = np.array([[10, 50], [0, 100], [30, 20]])
    noise = rng.uniform(-1, 1, (3, 24, 16)) * np.kron(strength, np.ones((8, 8)))
    image = torch.from_numpy((128 + noise).astype(np.uint8))
    places = [(8, 8), (0, 8), (16, 0), (16, 8), (0, 0), (8, 0)]
    expected = [image[:, top : top + 8, left : left + 8] for top, left in places]
    assert torch.equal(TexturedCrops(8, 6)(image), torch.stack(expected))
    assert torch.equal(TexturedCrops(8, 2)(image), torch.stack(expected[:2]))
    again = TexturedCrops(8, 8)(image)  # there are six
    assert torch.equal(again, torch.stack([*expected, *expected[:2]]))


@pytest.mark.parametrize(("height", "width"), [(18, 20), (8, 8), (5, 30)])
def test_textured_crops__by_numpys_gradient(height: int, width: int) -> None:
    image = smooth(height, width)
    found = TexturedCrops(8, 3)(image).numpy().astype(float)
    padded = CenterCrop(8)(image).numpy() if max(height, width) < 8 else image.numpy()
    if height < 8:
        margins = [(0, 0), ((8 - height) // 2, (9 - height) // 2), (0, 0)]
        padded = np.pad(image.numpy(), margins, mode="reflect")
    brightness = padded.astype(float).sum(axis=0)
    steps = [-(-side // 8) for side in brightness.shape]
    squares = [
        (top, left)
        for top in np.linspace(0, brightness.shape[0] - 8, steps[0]).round().astype(int)
        for left in np.linspace(0, brightness.shape[1] - 8, steps[1]).round().astype(int)
    ]
    texture = [
        sum(np.abs(np.diff(brightness[y : y + 8, x : x + 8], axis=axis)).sum() for axis in (0, 1))
        for y, x in squares
    ]
    order = np.argsort(-np.array(texture), kind="stable")
    for place, crop in enumerate(found):
        y, x = squares[order[place % len(order)]]
        assert np.array_equal(crop, padded[:, y : y + 8, x : x + 8])


def test_multi_scale__native_and_more_of_the_image() -> None:
    image = smooth(61, 90)
    native, half, most = MultiScale(16, [1, 2, 9])(image)
    assert torch.equal(native, CenterCrop(16)(image))
    for found, side in ((half, 32), (most, 61)):
        top, left = round((61 - side) / 2), round((90 - side) / 2)
        middle = pil(image).crop((left, top, left + side, top + side))
        expected = np.array(middle.resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 2
    assert MultiScale(16)(image[:, :9, :11]).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    "crop", [Resize, Squash, CenterCrop, RandomCrop, MultiCrop, TexturedCrops, MultiScale]
)
def test_crops__refuse_no_size(crop: type[Crop]) -> None:
    with pytest.raises(ConfigError, match="size: must be at least 1 pixel, got 0"):
        crop(0)


def test_multi_crop__refuses_other_counts() -> None:
    with pytest.raises(ConfigError, match="count: must be 4, 5 or 9, got 3"):
        MultiCrop(8, 3)  # type: ignore[arg-type]


def test_crops__refuse_other_settings() -> None:
    with pytest.raises(ConfigError, match="count: must be at least 1, got 0"):
        TexturedCrops(8, 0)
    for reach in ([], [0.5, 1.0]):
        with pytest.raises(ConfigError, match="reach: give numbers of at least 1"):
            MultiScale(8, reach)
