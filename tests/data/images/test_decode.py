import io
import os
import struct
import threading
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from dfl.data.images import decode as module
from dfl.data.images.decode import decode, decode_bytes
from dfl.errors import ImageError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    tensor = decode_bytes(data)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    return tensor.permute(1, 2, 0).numpy()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def grey16_png(values: np.ndarray, *extra: bytes) -> bytes:
    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        *extra,
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_decode__rgb_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "ü.b c.PNG"
    path.write_bytes(saved(Image.fromarray(COLOURS)))
    assert np.array_equal(decode(path).permute(1, 2, 0).numpy(), COLOURS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode__exif_orientation(kind: str, orientation: int) -> None:
    # An upright image, stored as a camera that was turned would, must come out upright.
    upright = np.zeros((24, 32, 3), dtype=np.uint8)
    upright[:8, :16] = (255, 0, 0)
    upright[16:, 16:] = (0, 0, 255)
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "PNG": {},
        "TIFF": {},
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    data = saved(stored, kind, exif=exif, **options[kind])
    result = pixels(data)
    assert result.shape == upright.shape
    assert np.abs(result.astype(int) - upright).mean() < 3


def test_decode__damaged_exif_is_ignored() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"
    data = saved(Image.fromarray(COLOURS), "JPEG", exif=exif)
    with pytest.warns(UserWarning, match="Corrupt EXIF"):  # Pillow's
        assert pixels(data).shape == COLOURS.shape


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_decode__opaque_modes(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    assert np.array_equal(pixels(saved(image)), np.array(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_decode__transparency_is_laid_on_white(mode: str) -> None:
    alpha = RNG.integers(0, 256, COLOURS.shape[:2], dtype=np.uint8)
    image = Image.fromarray(COLOURS).convert(mode[:-1])
    under = np.array(image.convert("RGB")).astype(float)
    image.putalpha(Image.fromarray(alpha))
    weight = alpha[..., None] / 255
    expected = under * weight + 255 * (1 - weight)
    assert np.abs(pixels(saved(image)) - expected).max() <= 1


@pytest.mark.parametrize("transparency", [2, bytes([255, 255, 0])])
def test_decode__palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putdata([0, 1, 2])
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    data = saved(image, transparency=transparency)
    assert pixels(data).tolist() == [[[10, 20, 30], [40, 50, 60], [255, 255, 255]]]


def test_decode__transparent_colour_of_rgb_and_grey() -> None:
    image = Image.new("RGB", (2, 1))
    image.putdata([(1, 2, 3), (4, 5, 6)])
    assert pixels(saved(image, transparency=(4, 5, 6))).tolist() == [[[1, 2, 3], [255] * 3]]
    grey = Image.new("L", (2, 1))
    grey.putdata([7, 9])
    assert pixels(saved(grey, transparency=7)).tolist() == [[[255] * 3, [9] * 3]]


def test_decode__grey_of_16_bits() -> None:
    values = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    expected = [[[round(value / 257)] * 3 for value in (0, 128, 257, 32768, 65535)]]
    assert pixels(grey16_png(values)).tolist() == expected
    assert pixels(saved(Image.fromarray(values), "TIFF")).tolist() == expected
    see_through = chunk(b"tRNS", struct.pack(">H", 257))
    assert pixels(grey16_png(values, see_through))[0, 2].tolist() == [255] * 3


def test_decode__integers_and_floats_of_32_bits() -> None:
    integers = Image.fromarray(np.array([[0, 257, 65535, 70000]], dtype=np.int32))
    assert pixels(saved(integers, "TIFF"))[0, :, 0].tolist() == [0, 1, 255, 255]
    for top in (1.0, 255.0):
        floats = Image.fromarray(np.array([[0, top / 5, top]], dtype=np.float32))
        assert pixels(saved(floats, "TIFF"))[0, :, 0].tolist() == [0, 51, 255]


def test_decode__cmyk_as_adobe_writes_it() -> None:
    # Pillow writes CMYK JPEGs with Adobe's marker and inverted values.
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    result = pixels(saved(cmyk, "JPEG", quality=95)).astype(int)
    assert np.abs(result - [0, 255, 255]).max() <= 4
    assert np.abs(pixels(saved(cmyk, "TIFF")).astype(int) - [0, 255, 255]).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_decode__first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (pixels(data) == [255, 0, 0]).all()


def test_decode__transparent_animation() -> None:
    frame = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert (pixels(saved(frame, "GIF")) == 255).all()


JPEG = saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
PNG = saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is an empty file; restore or remove it"),
        (
            b"this is text\n",
            r'is text \("this is text"\), no image; download it again or remove it',
        ),
        (JPEG[: len(JPEG) // 2], r"cannot be decoded \(.*truncated.*\); restore or remove it"),
        (PNG[: len(PNG) // 2], r"cannot be decoded \("),
        (PNG[:60] + b"\0" * 200 + PNG[260:], r"cannot be decoded \("),
        (None, "no such image; restore it or remove its row"),
    ],
)
def test_decode__unreadable_is_one_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"^{path}: {reason}") as caught:
        decode(path)
    assert "\n" not in str(caught.value)


def test_decode__a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read \(Is a directory\)"):
        decode(tmp_path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_decode__damage_of_any_kind_is_an_image_error() -> None:
    rng = np.random.default_rng(1)
    for data in (
        JPEG,
        PNG,
        saved(Image.fromarray(COLOURS), "GIF"),
        saved(Image.fromarray(COLOURS), "TIFF"),
    ):
        for _ in range(60):
            damaged = np.frombuffer(data, dtype=np.uint8).copy()
            damaged[rng.integers(0, min(len(data), 400), 4)] = rng.integers(0, 256, 4)
            with suppress(ImageError):  # nothing else may come out
                assert decode_bytes(damaged.tobytes()).shape[0] == 3


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_decode__bomb_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(ImageError, match=r"b\.png: has 40000 x 40000 pixels, more than the limit"):
        decode_bytes(bomb(40_000, 40_000), "b.png")


def test_decode__leaves_the_limit_of_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1234)
    threads = [threading.Thread(target=decode_bytes, args=(PNG,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(ImageError):
        decode_bytes(bomb(40_000, 40_000))
    assert Image.MAX_IMAGE_PIXELS == 1234


def test_decode__large_but_real_image_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow would warn, or refuse, from its own limit on; ours alone counts.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert pixels(PNG).shape == (64, 64, 3)
    monkeypatch.setattr(module, "MAX_PIXELS", 4095)
    with pytest.raises(ImageError, match="64 x 64"):
        decode_bytes(PNG)


def test_tiff_orientation__is_applied_once() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = 6
    data = saved(Image.fromarray(COLOURS), "TIFF", tiffinfo=tags)
    assert np.array_equal(pixels(data), np.rot90(COLOURS, -1))


KINDS_OF_JPEG = [
    {},
    {"progressive": True},
    {"subsampling": 0},
    {"subsampling": 1},
    {"quality": 30, "optimize": True},
    {"restart_marker_blocks": 3},
]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", KINDS_OF_JPEG, ids=str)
def test_jpeg__fast_path_gives_pillows_pixels(mode: str, options: dict[str, object]) -> None:
    whole = Image.fromarray(RNG.integers(0, 256, (61, 47, 3), dtype=np.uint8))
    for size in ((47, 61), (16, 16), (1, 1), (3, 130)):
        image = whole.resize(size).convert(mode)
        data = saved(image, "JPEG", **options)
        with Image.open(io.BytesIO(data)) as opened:
            assert np.array_equal(pixels(data), np.asarray(opened.convert("RGB")))


def test_jpeg__fast_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_to_rgb", lambda image: pytest.fail("decoded by Pillow"))
    assert pixels(JPEG).shape == (64, 64, 3)


def test_jpeg__cut_anywhere_is_an_error() -> None:
    for end in range(2, len(JPEG) - 2, 37):
        with pytest.raises(ImageError, match=r"cannot be decoded|no image of a known format"):
            pixels(JPEG[:end])


def test_decode__pages_that_another_program_draws_are_refused(tmp_path: Path, monkeypatch) -> None:
    """A file of any name may be PostScript, which Pillow hands to Ghostscript."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageError, match=r"holiday.jpg: is no image of a known format"):
        decode_bytes(page, "holiday.jpg")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mode", ["I;16", "F", "RGBA"])
def test_decode__in_bands_as_at_once(mode: str, monkeypatch) -> None:
    shape = (70, 9, 4) if mode == "RGBA" else (70, 9)
    values = {
        "I;16": RNG.integers(0, 65536, shape).astype(np.uint16),
        "F": RNG.random(shape).astype(np.float32),
        "RGBA": RNG.integers(0, 256, shape).astype(np.uint8),
    }[mode]
    if mode == "F":
        values[0, 0] = np.nan
    data = saved(Image.fromarray(values), "TIFF")
    whole = pixels(data)
    monkeypatch.setattr(module, "BAND_ROWS", 16)
    assert np.array_equal(pixels(data), whole)
    assert len(np.unique(whole)) > 100
