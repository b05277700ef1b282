"""Damage that a decoder gets over is found, and no line of a C library reaches the terminal."""

import io
import os
import random
import struct
import threading
from collections import Counter

import numpy as np
import PIL
import pytest
from PIL import Image

from dfl.data.images.damage import hearing_libtiff
from dfl.data.images.decode import decode_bytes, decode_noting
from dfl.errors import ImageError
from tests.benchmarks import fuzz

RNG = np.random.default_rng(0)
PICTURE = Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((160, 120), 3)


def saved(kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    PICTURE.convert(mode).save(stream, kind, **options)
    return stream.getvalue()


JPEG = saved()
SCAN = JPEG.index(b"\xff\xda")
KINDS = [{}, {"progressive": True}, {"restart_marker_blocks": 4}, {"subsampling": 0}]


def pixels(data: bytes) -> np.ndarray:
    return decode_bytes(data).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_jpeg__without_its_last_bytes_is_sound(mode: str, options: dict[str, object]) -> None:
    whole = saved(mode=mode, **options)
    for data in (whole[:-1], whole[:-2], whole, whole + b"a motion photo's film" * 99):
        decoded = decode_noting(data)
        assert decoded.damage == ""
        with Image.open(io.BytesIO(whole)) as opened:
            expected = np.asarray(opened.convert("RGB"))
        assert np.array_equal(decoded.pixels.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.99])
def test_jpeg__cut_short_is_an_error(options: dict[str, object], part: float) -> None:
    data = saved(**options)
    with pytest.raises(ImageError, match=r"cannot be decoded .*truncated"):
        decode_bytes(data[: int(len(data) * part)])


DAMAGED = {
    "bytes lost": JPEG[: SCAN + 500] + JPEG[SCAN + 900 :],
    "bytes between": JPEG[:-2] + b"\x12" * 40 + JPEG[-2:],
    "end too early": JPEG[: SCAN + 900] + b"\xff\xd9" + JPEG[SCAN + 900 :],
    "zeros": JPEG[: SCAN + 900] + b"\0" * 700 + JPEG[SCAN + 1600 :],
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_jpeg__damage_is_noted_or_refused(damage: str, capfd: pytest.CaptureFixture) -> None:
    decoded = decode_noting(DAMAGED[damage])
    assert decoded.pixels.shape == (3, 120, 160)
    assert decoded.damage.startswith("Corrupt JPEG data")
    with pytest.raises(ImageError, match=r"^a.jpg: is damaged \(Corrupt JPEG .*\); restore it, or"):
        decode_noting(DAMAGED[damage], "a.jpg", "refuse")
    assert capfd.readouterr() == ("", "")


def scans(data: bytes) -> list[int]:
    return [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]


def test_jpeg__lost_scans_are_noted() -> None:
    data = saved(progressive=True)
    places = scans(data)
    assert len(places) > 3
    assert decode_noting(data).damage == ""
    for last in (1, 3, len(places) - 1):
        assert decode_noting(data[: places[last]] + b"\xff\xd9").damage == "scans are missing"
        with pytest.raises(ImageError, match="truncated"):
            decode_bytes(data[: places[last]])


@pytest.mark.parametrize("major", [1, 2, 9])
def test_jpeg__what_says_nothing_of_pixels_is_no_damage(major: int) -> None:
    at = JPEG.index(b"JFIF\0") + 5
    data = JPEG[:at] + bytes([major]) + JPEG[at + 1 :]
    decoded = decode_noting(data, on_damaged="refuse")
    assert decoded.damage == ""
    assert np.array_equal(decoded.pixels.permute(1, 2, 0).numpy(), pixels(JPEG))


FAX = saved("TIFF", "1", compression="group4")


def damaged_fax() -> bytes:
    (place,) = struct.unpack_from("<I", saved("TIFF", "1", compression="group4"), 4)
    start = 8 if place > 8 else place + 200
    data = bytearray(FAX)
    data[start + 40 : start + 60] = b"\0" * 20
    return bytes(data)


def test_tiff__damage_is_noted_or_refused(capfd: pytest.CaptureFixture) -> None:
    assert decode_noting(FAX).damage == ""
    decoded = decode_noting(damaged_fax())
    assert decoded.damage.startswith("Fax4Decode: ")
    with pytest.raises(ImageError, match=r"is damaged \(Fax4Decode"):
        decode_noting(damaged_fax(), on_damaged="refuse")
    assert capfd.readouterr() == ("", "")


def test_tiff__an_error_in_the_words_of_its_library(capfd: pytest.CaptureFixture) -> None:
    data = bytearray(saved("TIFF", compression="tiff_adobe_deflate"))
    middle = len(data) // 2
    data[middle] ^= 1
    with pytest.raises(ImageError, match=r"cannot be decoded \(ZIPDecode: .*\); restore"):
        decode_bytes(bytes(data))
    assert capfd.readouterr() == ("", "")


def test_hearing__passes_on_what_others_say(capfd: pytest.CaptureFixture) -> None:
    with hearing_libtiff() as lines:
        os.write(2, b"progress\rFax4Decode: Bad code.\nnews\nMissingRequired: A field.\n")
    assert lines == ["Fax4Decode: Bad code.\n", "MissingRequired: A field.\n"]
    assert capfd.readouterr().err == "progress\rnews\n"
    with hearing_libtiff() as lines:
        pass
    assert lines == []


def test_hearing__each_thread_hears_of_its_own_image(capfd: pytest.CaptureFixture) -> None:
    wanted = [damaged_fax() if number % 3 == 0 else FAX for number in range(30)]
    found = [""] * len(wanted)

    def look(start: int) -> None:
        for number in range(start, len(wanted), 3):
            found[number] = decode_noting(wanted[number]).damage

    threads = [threading.Thread(target=look, args=(start,)) for start in (0, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bool(each) for each in found] == [each is not FAX for each in wanted]
    assert capfd.readouterr() == ("", "")


def png_with(data: bytes, place: int, values: bytes) -> bytes:
    return data[:place] + values + data[place + len(values) :]


def test_png__wrong_checksum_of_pixels_is_damage() -> None:
    data = saved("PNG")
    assert decode_noting(data).damage == ""
    end = data.index(b"IEND") - 8
    decoded = decode_noting(png_with(data, end, b"\0\0\0\0"))
    assert decoded.damage == "wrong checksum in IDAT"
    assert np.array_equal(decoded.pixels.permute(1, 2, 0).numpy(), np.asarray(PICTURE))
    with pytest.raises(ImageError, match=r"is damaged \(wrong checksum in IDAT\)"):
        decode_noting(png_with(data, end, b"\0\0\0\0"), on_damaged="refuse")


def test_webp__lost_bytes_are_no_broken_metadata() -> None:
    """The next chunk moves into the pixels; leaving it out would make the file look sound."""
    data = saved("WEBP", exif=b"Exif\0\0" + b"x" * 100)
    with pytest.raises(ImageError):
        decode_bytes(data[:300] + data[304:])


def test_tiff__cut_short_is_an_error_whatever_is_left_out_of_it() -> None:
    data = saved("TIFF", description="a description", software="x" * 80)
    with pytest.raises(ImageError, match="truncated"):
        decode_bytes(data[:-400])


@pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13,
    reason="before Pillow 13, its libraries print, and read damaged fax into memory not yet set",
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_fuzz__each_file_is_read_or_named(kind: str) -> None:
    """A small part of `tests.benchmarks.fuzz`."""
    sound = fuzz.originals()[kind]
    said = Counter()
    for number in range(60):
        draw = random.Random(number)
        data, wanted = draw.choice(sound)
        damaged = fuzz.mutant(data, draw)
        verdict, found = fuzz.judge(damaged, wanted)
        assert verdict.fault == ""
        assert fuzz.compare(found, "Pillow", damaged) in ("equal", "ours alone", "neither"), number
        said[verdict.said] += 1
    assert 0 < said["sound"] + said["damaged"] < said.total()
