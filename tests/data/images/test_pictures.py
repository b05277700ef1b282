"""Files with several pictures: the full one is read, or an error says what to do."""

import io
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from dfl.data.images.decode import decode_bytes
from dfl.errors import ImageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of sizes in an icon

RNG = np.random.default_rng(0)
FULL = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
SMALL = FULL[::4, ::4].copy()
LARGER = r"holds a picture of 80 x 60 pixels beside the (first|main) one, of 20 x 15; save the one"


def pixels(data: bytes) -> np.ndarray:
    return decode_bytes(data).permute(1, 2, 0).numpy()


def tiff(
    pages: Sequence[tuple[np.ndarray, dict]], children: Sequence[tuple[np.ndarray, dict]] = (), **kw
) -> bytes:
    tifffile = pytest.importorskip("tifffile", reason='pip install "dfl[demo]"')
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, **kw) as writer:
        for number, (page, options) in enumerate(pages):
            subifds = len(children) if number == 0 else 0
            given = {"photometric": "rgb", "metadata": None, **options}
            writer.write(page, subifds=subifds, **given)
            for child, more in children if number == 0 else ():
                writer.write(child, **{"photometric": "rgb", "metadata": None, **more})
    return stream.getvalue()


@pytest.mark.parametrize("form", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=str)
@pytest.mark.parametrize("where", ["page", "child"])
def test_tiff__full_picture_behind_a_thumbnail(form: dict, where: str) -> None:
    """As DNG and scanners write it: the first page is marked as a reduced copy."""
    thumbnail, full = (SMALL, {"subfiletype": 1}), (FULL, {"subfiletype": 0})
    data = tiff([thumbnail, full], **form) if where == "page" else tiff([thumbnail], [full], **form)
    assert np.array_equal(pixels(data), FULL)


def test_tiff__first_of_equal_pages_and_pyramids_stay() -> None:
    other = 255 - FULL
    assert np.array_equal(pixels(tiff([(FULL, {}), (other, {})])), FULL)
    assert np.array_equal(pixels(tiff([(FULL, {})], [(SMALL, {"subfiletype": 1})])), FULL)
    assert np.array_equal(pixels(tiff([(SMALL, {"subfiletype": 1})])), SMALL)  # all there is
    mask = np.ones((120, 160), dtype=bool)
    options = {"subfiletype": 4, "photometric": 4}
    assert np.array_equal(pixels(tiff([(FULL, {}), (mask, options)])), FULL)


@pytest.mark.parametrize("where", ["page", "child"])
def test_tiff__larger_picture_that_nothing_marks(where: str) -> None:
    pages, children = [(SMALL, {})], [(FULL, {})]
    data = tiff(pages + children) if where == "page" else tiff(pages, children)
    with pytest.raises(ImageError, match=LARGER):
        pixels(data)


@pytest.mark.parametrize("photometric", ["cfa", 34892])
def test_tiff__raw_files_of_cameras(photometric: object) -> None:
    """NEF, ARW and DNG: a preview, and the values of the sensor under it."""
    sensor = {"photometric": photometric, "subfiletype": 0}
    shape = (60, 80) if photometric == "cfa" else (60, 80, 3)
    mosaic = RNG.integers(0, 4096, shape, dtype=np.uint16)
    data = tiff([(SMALL, {"subfiletype": 1})], [(mosaic, sensor)])
    with pytest.raises(ImageError, match=r"is a camera's raw file, of which a preview .*; develop"):
        pixels(data)


def test_tiff__raw_file_of_canon() -> None:
    plain = tiff([(SMALL, {})])
    (place,) = struct.unpack_from("<I", plain, 4)
    moved = plain[:8] + b"CR\2\0" + plain[8:]
    data = moved[:4] + struct.pack("<I", place + 4) + moved[8:]
    with pytest.raises(ImageError, match="is a camera's raw file"):
        pixels(data)


def test_tiff__pages_that_lead_in_a_circle() -> None:
    data = bytearray(tiff([(FULL, {})]))
    (place,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, place)
    struct.pack_into("<I", data, place + 2 + 12 * entries, place)
    assert np.array_equal(pixels(bytes(data)), FULL)


def icon(*pictures: tuple[np.ndarray, int]) -> bytes:
    entries, contents = b"", b""
    for values, declared in pictures:
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "PNG")
        place = 6 + 16 * len(pictures) + len(contents)
        size = (declared % 256, declared % 256, 0, 0, 1, 32, len(stream.getvalue()), place)
        entries += struct.pack("<BBBBHHII", *size)
        contents += stream.getvalue()
    return struct.pack("<HHH", 0, 1, len(pictures)) + entries + contents


def test_ico__largest_whatever_the_list_says() -> None:
    small, large = (RNG.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in (32, 512))
    for pictures in ([(small, 32), (large, 256)], [(large, 256), (small, 32)]):
        assert np.array_equal(pixels(icon(*pictures)), large)
    assert np.array_equal(pixels(icon((small, 255), (large, 48))), large)  # the list is wrong


def test_ico__most_colours_of_equal_sizes() -> None:
    large = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    black_and_white = (large[..., 0] > 127).astype(bool)
    for pictures in ([(black_and_white, 64), (large, 64)], [(large, 64), (black_and_white, 64)]):
        assert np.array_equal(pixels(icon(*pictures)), large)


def test_icns__largest_in_pixels_not_in_points() -> None:
    def block(kind: bytes, size: int) -> tuple[bytes, np.ndarray]:
        values = RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "PNG")
        content = stream.getvalue()
        return kind + struct.pack(">I", len(content) + 8) + content, values

    (small, _), (large, values) = block(b"ic11", 32), block(b"ic12", 64)
    (middle, _) = block(b"icp5", 32)
    body = small + middle + large
    assert np.array_equal(pixels(b"icns" + struct.pack(">I", len(body) + 8) + body), values)
    body = block(b"ih32", 48)[0] + large  # Pillow takes 48 points for more than twice 32
    assert np.array_equal(pixels(b"icns" + struct.pack(">I", len(body) + 8) + body), values)


@pytest.mark.parametrize("first", ["small", "full"])
def test_mpo__first_unless_another_is_larger(first: str) -> None:
    small, full = (Image.fromarray(each) for each in (SMALL, FULL))
    one, two = (small, full) if first == "small" else (full, small)
    stream = io.BytesIO()
    one.save(stream, "MPO", save_all=True, append_images=[two], quality=95)
    if first == "small":
        with pytest.raises(ImageError, match=LARGER):
            pixels(stream.getvalue())
    else:
        assert pixels(stream.getvalue()).shape == FULL.shape


def psd(has_picture: int | None) -> bytes:
    version = b"" if has_picture is None else struct.pack(">IB", 1, has_picture) + b"\0" * 13
    resource = b"8BIM" + struct.pack(">HH", 1057, 0) + struct.pack(">I", len(version)) + version
    resources = b"" if has_picture is None else resource
    height, width = FULL.shape[:2]
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, height, width, 8, 3)
    planes = FULL.transpose(2, 0, 1).tobytes()
    return header + struct.pack(">II", 0, len(resources)) + resources + b"\0" * 6 + planes


@pytest.mark.parametrize("has_picture", [None, 1])
def test_psd__picture_of_the_layers(has_picture: int | None) -> None:
    assert np.array_equal(pixels(psd(has_picture)), FULL)


def test_psd__without_the_picture_of_its_layers() -> None:
    with pytest.raises(ImageError, match=r"holds layers without the picture .*; save it with 'Max"):
        pixels(psd(0))


def test_apng__poster_that_is_no_frame() -> None:
    frames = [Image.fromarray(each) for each in (FULL, 255 - FULL, FULL // 2)]
    for is_poster in (False, True):
        stream = io.BytesIO()
        options = {"save_all": True, "append_images": frames[1:], "default_image": is_poster}
        frames[0].save(stream, "PNG", **options)
        if is_poster:
            with pytest.raises(ImageError, match="holds a picture for programs that play no anim"):
                pixels(stream.getvalue())
        else:
            assert np.array_equal(pixels(stream.getvalue()), FULL)


def heif(*pictures: np.ndarray, primary: int = 0) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason='pip install "dfl[heif]"')
    file = pillow_heif.HeifFile()
    for each in pictures:
        file.add_from_pillow(Image.fromarray(each))
    stream = io.BytesIO()
    file.save(stream, quality=-1, primary_index=primary)
    return stream.getvalue()


def close(data: bytes, wanted: np.ndarray) -> bool:
    found = pixels(data)
    return found.shape == wanted.shape and bool(np.abs(found.astype(int) - wanted).mean() < 30)


def test_heif__main_picture_unless_another_is_larger() -> None:
    other = 255 - FULL
    assert close(heif(FULL), FULL)
    assert close(heif(FULL, SMALL), FULL)
    assert close(heif(SMALL, FULL, primary=1), FULL)
    assert close(heif(FULL, other, primary=1), other)
    with pytest.raises(ImageError, match=LARGER):
        pixels(heif(SMALL, FULL, primary=0))


def test_avif__animation_beside_a_larger_picture() -> None:
    stream = io.BytesIO()
    frames = [Image.fromarray(each) for each in (SMALL, 255 - SMALL)]
    frames[0].save(stream, "AVIF", save_all=True, append_images=frames[1:], quality=95)
    data = stream.getvalue()
    assert pixels(data).shape == SMALL.shape
    extent = struct.pack(">II", 20, 15)
    assert data.count(b"ispe\0\0\0\0" + extent) >= 1
    poster = data.replace(b"ispe\0\0\0\0" + extent, b"ispe\0\0\0\0" + struct.pack(">II", 80, 60))
    with pytest.raises(ImageError, match=LARGER):
        pixels(poster)
