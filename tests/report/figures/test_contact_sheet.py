import numpy as np
import pytest
from PIL import Image

from dfl.errors import ImageError
from dfl.report.figures.contact_sheet import contact_sheet, thumbnail

RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_contact_sheet__tiles_lie_in_reading_order():
    images = [Image.new("RGB", (32, 32), color) for color in (RED, BLUE, RED, BLUE, BLUE)]
    sheet = contact_sheet(images, columns=2, size_px=20)
    assert sheet.size == (2 * 28 + 8, 3 * 28 + 8)
    centres = [sheet.getpixel((8 + 10 + 28 * (i % 2), 8 + 10 + 28 * (i // 2))) for i in range(6)]
    assert centres == [RED, BLUE, RED, BLUE, BLUE, (255, 255, 255)]


def test_contact_sheet__keeps_the_shape_of_images():
    sheet = contact_sheet([Image.new("L", (40, 10))], size_px=40)
    dark = np.argwhere(np.asarray(sheet)[..., 0] == 0)
    height, width = np.ptp(dark, axis=0) + 1
    assert (width, height) == (40, 10)


def test_contact_sheet__captions_stay_in_their_column():
    images = [Image.new("RGB", (64, 64), RED)] * 2
    sheet = contact_sheet(images, ["a very long caption that cannot fit\nx", ""], size_px=64)
    pixels = np.asarray(sheet)
    ink = np.argwhere((pixels < 128).all(axis=2))
    assert ink.size
    assert ink[:, 1].max() <= 8 + 64
    assert ink[:, 0].max() < sheet.height - 4


def test_contact_sheet__broken_file_leaves_a_gap_and_a_warning(tmp_path, caplog):
    (tmp_path / "bad.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8), BLUE).save(tmp_path / "good.png")
    sheet = contact_sheet([tmp_path / "bad.png", tmp_path / "good.png"], size_px=16)
    assert sheet.getpixel((16, 16)) == (225, 225, 225)
    assert sheet.getpixel((40, 16)) == BLUE
    assert "bad.png" in caplog.text


def test_contact_sheet__refuses_nothing_and_wrong_captions():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        contact_sheet([Image.new("RGB", (8, 8))] * 2, ["x"])


def test_thumbnail__is_scaled_to_fit(tmp_path):
    Image.new("RGB", (200, 100), RED).save(tmp_path / "a.png")
    assert thumbnail(tmp_path / "a.png", size_px=50).size == (50, 25)


def test_thumbnail__broken_file(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"bad\.png"):
        thumbnail(tmp_path / "bad.png")
