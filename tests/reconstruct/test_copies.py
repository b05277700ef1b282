import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfl.data.images.decode import decode, decode_bytes
from dfl.reconstruct.copies import (
    jpeg_tables,
    read_note,
    recompressed,
    size_of_copy,
    write_copy,
)


def _photograph() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((64, 48), Image.Resampling.BICUBIC))


def test_write_copy__is_lossless_and_says_what_it_is_made_of(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "copy.png"
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    write_copy(image, file, "key content")
    assert torch.equal(decode(file), image)
    assert read_note(file) == "key content"
    assert size_of_copy(file) == (5, 7)


def test_read_note__damaged_missing_or_of_another_program(tmp_path: Path) -> None:
    file = tmp_path / "copy.png"
    assert read_note(file) is None
    write_copy(torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8), file, "key content")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"IDAT") + 8] ^= 1
    for damaged in (whole[:-5], bytes(flipped), b"nothing"):
        file.write_bytes(damaged)
        assert read_note(file) is None
    Image.new("RGB", (4, 4)).save(file)
    assert read_note(file) == ""


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("RGB", {"quality": 35}),
        ("RGB", {"quality": 90, "subsampling": "4:4:4"}),
        ("RGB", {"quality": 75, "subsampling": "4:2:2", "progressive": True}),
        ("L", {"quality": 60}),
    ],
)
def test_recompressed__as_the_photograph_was(mode: str, settings: dict) -> None:
    """The same pixels, compressed by what is read of the file, are the same file's pixels."""
    stream = io.BytesIO()
    source = Image.fromarray(_photograph()).convert(mode)
    source.save(stream, "JPEG", **settings)
    tables = jpeg_tables(stream.getvalue())
    assert tables is not None
    pixels = torch.from_numpy(np.array(source.convert("RGB"))).permute(2, 0, 1)
    again = recompressed(pixels, tables)
    assert torch.equal(again, decode_bytes(stream.getvalue()))


def test_jpeg_tables__of_a_png() -> None:
    stream = io.BytesIO()
    Image.fromarray(_photograph()).save(stream, "PNG")
    assert jpeg_tables(stream.getvalue()) is None
