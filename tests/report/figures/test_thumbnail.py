import pytest
from PIL import Image

from dfl.errors import ImageError
from dfl.report.figures.thumbnail import thumbnail


def test_thumbnail__is_scaled_to_fit(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    assert thumbnail(tmp_path / "a.png", size_px=50).size == (50, 25)


def test_thumbnail__broken_file(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"bad\.png"):
        thumbnail(tmp_path / "bad.png")
