import pytest
import torch

from dfl.reconstruct.cropping import native_crop


@pytest.mark.parametrize(
    ("size", "unit", "most", "rows", "columns"),
    [
        ((37, 50), 8, None, (0, 32), (0, 48)),  # 5 and 2 pixels less: still from the corner
        ((64, 64), 8, None, (0, 64), (0, 64)),
        ((100, 200), 8, 64, (16, 80), (64, 128)),  # the middle is at 18 and at 68
        ((100, 9), 4, 50, (16, 64), (0, 8)),
    ],
)
def test_native_crop__keeps_the_grid_of_a_jpeg(size, unit, most, rows, columns) -> None:
    image = torch.arange(3 * size[0] * size[1]).reshape(3, *size)
    crop = native_crop(image, unit, most)
    assert crop is not None
    assert torch.equal(crop, image[:, slice(*rows), slice(*columns)])


def test_native_crop__too_small() -> None:
    assert native_crop(torch.zeros(3, 7, 80), 8) is None
