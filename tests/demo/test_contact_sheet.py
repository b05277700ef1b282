import numpy as np
import pytest

from dfl.demo.contact_sheet import draw_contact_sheet
from dfl.demo.crops import imitated_crops
from dfl.demo.dataset import FAMILIES, cut_sheet
from dfl.demo.photographs import PHOTOGRAPHS

pytest.importorskip("skimage", reason="needs the extra [demo]")


def test_draw_contact_sheet__real_above_each_family():
    photograph = PHOTOGRAPHS[0]
    sheet = draw_contact_sheet([photograph], columns=4)

    assert sheet.size == (4 * 64, 4 * 64)
    rows = [[crop.image for crop in imitated_crops(photograph)]]
    rows += [cut_sheet(family, photograph) for family in FAMILIES]
    for i, images in enumerate(rows):
        tile = sheet.crop((64, 64 * i, 128, 64 * i + 64))
        assert np.array_equal(np.asarray(tile), np.asarray(images[4]))
