import numpy as np
import pytest

from dfl.demo.crops import CROP_SIZE, cut_crops, imitated_crops
from dfl.demo.photographs import PHOTOGRAPHS, load_photograph

pytest.importorskip("skimage", reason="needs the extra [demo]")

SOME = [next(p for p in PHOTOGRAPHS if p.split == split) for split in ("train", "val", "test")]


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda p: p.name)
def test_cut_crops__number_size_and_texture(photograph):
    crops = cut_crops(photograph)

    assert len(crops) == (48 if photograph.split == "train" else 16)
    assert len({crop.name for crop in crops}) == len(crops)
    for crop in crops:
        assert crop.image.size == (CROP_SIZE, CROP_SIZE)
        assert np.asarray(crop.image.convert("L")).std() >= 10.0


@pytest.mark.parametrize("photograph", SOME, ids=lambda p: p.name)
def test_cut_crops__same_twice(photograph):
    first, second = (cut_crops.__wrapped__(photograph) for _ in range(2))

    assert [c.name for c in first] == [c.name for c in second]
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(first, second, strict=True))


def test_cut_crops__pixels_are_means_of_two_by_two():
    photograph = SOME[2]
    crop = cut_crops(photograph)[5]
    x, y = (2 * int(part[1:]) for part in crop.name.split("_"))
    pixels = np.asarray(load_photograph(photograph), dtype=float)[y : y + 128, x : x + 128]
    expected = pixels.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))

    assert np.abs(np.asarray(crop.image) - expected).max() <= 0.5


@pytest.mark.parametrize("photograph", SOME, ids=lambda p: p.name)
def test_imitated_crops__are_sixteen_of_the_real_ones(photograph):
    names = [crop.name for crop in imitated_crops(photograph)]

    assert len(names) == 16
    assert set(names) <= {crop.name for crop in cut_crops(photograph)}
