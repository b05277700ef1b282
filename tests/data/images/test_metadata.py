"""Metadata do not decide whether an image is read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from dfl.data.images.decode import decode_bytes, decode_noting
from dfl.data.images.metadata import without_metadata
from dfl.errors import ImageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of broken tags

COLOURS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
LONG = b"workflow" * 200_000  # above Pillow's limit for what is unpacked


def saved(kind: str = "PNG", image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(COLOURS)).save(stream, kind, **options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return decode_bytes(data).permute(1, 2, 0).numpy()


def chunk(kind: bytes, data: bytes, wrong: int = 0) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data) ^ wrong)
    return struct.pack(">I", len(data)) + kind + data + checksum


ZTXT = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(LONG))
ITXT = chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(LONG))
ICCP = chunk(b"iCCP", b"profile\0\0" + zlib.compress(LONG))


@pytest.mark.parametrize("at", [33, -12], ids=["before", "behind"])
@pytest.mark.parametrize(
    "extra",
    [
        ZTXT,
        ITXT,
        ICCP,
        ZTXT * 70,  # more than Pillow takes of all together
        chunk(b"tEXt", b"Comment\0edited", wrong=1),
        chunk(b"zTXt", b"Comment\0\7x"),
        chunk(b"tEXt", b"a\0" + b"x" * 70_000_000),
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", b"\0"),
        chunk(b"pHYs", b"\0"),
        chunk(b"sRGB", b""),
        chunk(b"iCCP", b"name"),
        chunk(b"eXIf", b"none", wrong=1),
        chunk(b"acTL", b"\0"),
        chunk(b"fcTL", b"\0" * 26, wrong=1),
    ],
    ids=lambda data: f"{data[4:8].decode()}-{len(data)}",
)
def test_png__pixels_whatever_its_texts(extra: bytes, at: int) -> None:
    plain = saved()
    at %= len(plain)
    decoded = decode_noting(plain[:at] + extra + plain[at:])
    assert np.array_equal(decoded.pixels.permute(1, 2, 0).numpy(), COLOURS)
    assert decoded.damage == ""


def test_png__limits_of_the_process_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels(saved()[:33] + ZTXT + saved()[33:])
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_png__orientation_and_transparency_are_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(exif=exif)
    assert np.array_equal(pixels(data[:33] + ZTXT + data[33:]), np.rot90(COLOURS, -1))
    grey = Image.new("L", (2, 1))
    grey.putdata([7, 9])
    data = saved(image=grey, transparency=7)
    assert pixels(data[:33] + ZTXT + data[33:]).tolist() == [[[255] * 3, [9] * 3]]


def test_png__transparency_with_a_wrong_checksum_is_damage() -> None:
    plain = saved()
    data = plain[:33] + chunk(b"tRNS", struct.pack(">HHH", *COLOURS[0, 0]), wrong=1) + plain[33:]
    decoded = decode_noting(data)
    assert np.array_equal(decoded.pixels.permute(1, 2, 0).numpy(), COLOURS)
    assert decoded.damage == "wrong checksum in tRNS, whose transparency is left out"
    with pytest.raises(ImageError, match=r"is damaged .wrong checksum"):
        decode_noting(data, on_damaged="refuse")


def test_png__broken_pixels_are_an_error_all_the_same() -> None:
    data = bytearray(saved())
    data[data.index(b"IDAT") + 40] ^= 1
    with pytest.raises(ImageError, match="cannot be decoded"):
        pixels(bytes(data[:33]) + ZTXT + bytes(data[33:]))
    with pytest.raises(ImageError, match="cannot be decoded"):
        pixels(bytes(data))


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE2, b"ICC_PROFILE\0"),  # without its numbers
        segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\2\0\0\0\0\0\0\0"),
        segment(0xE2, b"MPF\0\1\2"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x02\1\1"),
        segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff") * 9,
        segment(0xEB, b"\0" * 65_533) * 40,
        segment(0xFE, b"x" * 65_533),
    ],
    ids=lambda data: str(data[:8]),
)
def test_jpeg__pixels_whatever_its_segments(extra: bytes) -> None:
    plain = saved("JPEG", quality=95)
    decoded = decode_noting(plain[:20] + extra + plain[20:])
    assert np.array_equal(decoded.pixels.permute(1, 2, 0).numpy(), pixels(plain))
    assert decoded.damage == ""


def test_jpeg__orientation_is_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved("JPEG", exif=exif)
    at = 4 + struct.unpack_from(">H", data, 4)[0]
    broken = data[:at] + segment(0xE2, b"ICC_PROFILE\0") + data[at:]
    assert np.array_equal(pixels(broken), pixels(data))
    assert pixels(data).shape == (24, 16, 3)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("kind", [b"ICCP", b"EXIF", b"XMP "])
def test_webp__pixels_whatever_its_metadata(kind: bytes, lossless: bool) -> None:
    options = {"icc_profile": b"x" * 300, "exif": b"Exif\0\0y" + b"y" * 301, "xmp": b"z" * 302}
    data = saved("WEBP", lossless=lossless, **options)
    plain = saved("WEBP", lossless=lossless)
    at = data.index(kind)
    broken = bytearray(data)
    broken[at + 8 : at + 30] = b"\xff" * 22
    assert np.array_equal(pixels(bytes(broken)), pixels(plain))


def test_webp__cut_in_its_metadata() -> None:
    data = saved("WEBP", lossless=True, xmp=b"z" * 302)
    assert np.array_equal(pixels(data[:-200]), COLOURS)
    with pytest.raises(ImageError):
        pixels(data[: data.index(b"VP8L") + 100])


@pytest.mark.parametrize("tag", [700, 34675, 34665, 34853, 33723, 37724])
@pytest.mark.parametrize("value", [(7, 4000, 1 << 30), (4, 1, 1 << 30), (9, 9, 9), (99, 1, 1)])
def test_tiff__pixels_whatever_its_tags(tag: int, value: tuple[int, int, int]) -> None:
    plain = saved("TIFF", compression="tiff_lzw")
    (place,) = struct.unpack_from("<I", plain, 4)
    (count,) = struct.unpack_from("<H", plain, place)
    entries = [plain[place + 2 + 12 * n :][:12] for n in range(count)]
    entries = sorted([*entries, struct.pack("<HHII", tag, *value)], key=lambda e: e[:2][::-1])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4
    padded = plain + b"\0" * (len(plain) % 2)
    data = padded[:4] + struct.pack("<I", len(padded)) + padded[8:] + directory
    assert np.array_equal(pixels(data), COLOURS)


def test_avif__broken_exif() -> None:
    exif = Image.Exif()
    exif[0x010E] = "description"
    data = saved("AVIF", exif=exif, quality=90)
    at = data.index(b"description") - 26
    start = (
        data.rindex(b"II*\0", 0, at + 26)
        if b"II*\0" in data[: at + 26]
        else data.rindex(b"MM\0*", 0, at + 26)
    )
    broken = data[:start] + b"none" + data[start + 4 :]
    assert np.array_equal(pixels(broken), pixels(saved("AVIF", quality=90)))


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF\0\0\0\0WEBP", b"II*\0"]
)
def test_without_metadata__of_next_to_nothing(data: bytes) -> None:
    found = without_metadata(data)
    assert found is None or len(found[0]) <= len(data) + 16
