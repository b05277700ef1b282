import numpy as np
import pytest
import torch
from PIL import Image

from dfl.demo.crops import imitated_crops
from dfl.demo.generators.imitator import Imitator
from dfl.demo.generators.sheets import imitate_photograph, match_exposure, write_sheets
from dfl.demo.photographs import PHOTOGRAPHS

pytest.importorskip("skimage", reason="needs the extra [demo]")

COLOURED = next(p for p in PHOTOGRAPHS if not p.is_grey)
GREY = next(p for p in PHOTOGRAPHS if p.is_grey)


class Inverter(Imitator):
    """Stands for a generator: colours inverted, red a little stronger."""

    def update(self, real, optimizers, *, generator):
        return {}

    def imitate(self, crop, *, generator):
        return -crop * torch.tensor([1.0, 0.9, 0.9]).reshape(1, 3, 1, 1)


def test_match_exposure__gives_mean_and_std_of_the_real():
    drawn = torch.rand(2, 3, 8, 8) * 0.1
    real = torch.rand(2, 3, 8, 8) - 0.5

    matched = match_exposure(drawn, real)

    assert torch.allclose(matched.mean((-2, -1)), real.mean((-2, -1)), atol=1e-5)
    assert torch.allclose(matched.std((-2, -1)), real.std((-2, -1)), atol=1e-5)


def test_match_exposure__a_plain_image_stays_finite():
    matched = match_exposure(torch.zeros(1, 3, 8, 8), torch.rand(1, 3, 8, 8))

    assert torch.isfinite(matched).all()


def test_imitate_photograph__as_many_as_crops_and_grey_stays_grey():
    images = imitate_photograph(Inverter(), GREY, seed=0)

    assert len(images) == len(imitated_crops(GREY))
    pixels = np.asarray(images[0])
    assert pixels.shape == (64, 64, 3)
    assert (pixels == pixels[..., :1]).all()


def test_write_sheets__read_back_without_loss(tmp_path):
    paths = write_sheets(Inverter(), tmp_path / "gan", (COLOURED, GREY), seed=0)

    assert sorted(p.name for p in (tmp_path / "gan").iterdir()) == sorted(p.name for p in paths)
    for path, photograph in zip(paths, (COLOURED, GREY), strict=True):
        wanted = [np.asarray(i) for i in imitate_photograph(Inverter(), photograph, seed=0)]
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), np.concatenate(wanted))
