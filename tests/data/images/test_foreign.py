"""What lies under the names of images and is none: said, with a remedy that fits."""

import gzip
import io
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from dfl.data.images import decode as module
from dfl.data.images.decode import decode_bytes
from dfl.errors import ImageError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 40000\n"


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.png", b"x")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LFS, "is a Git LFS pointer, which stands for the image; fetch .* `git lfs pull`"),
        (b"/annex/objects/MD5E-s100--ab.jpg\n", "is a git-annex pointer.*`git annex get`"),
        (
            b"<html><body>403 Forbidden</body></html>",
            r'is a web page \("403 Forbidden"\), no image; download it again',
        ),
        (
            b"\n<!DOCTYPE HTML PUBLIC '-//IETF'>\n<head><title>404 Not\nFound</title>",
            r'is a web page \("404 Not Found"\), no image',
        ),
        (b"<!-- cached --><HTML lang='de'>", "is a web page, no image; download it again"),
        (
            b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
            r'is XML \("AccessDenied"\), no image; download it again',
        ),
        (b'{"error": "quota"}', r"is JSON .*no image; download it again"),
        ("nicht gefunden: ä".encode(), r'is text \("nicht gefunden: ä"\), no image; download'),
        ("gone".encode("utf-16"), r'is text \("gone"\), no image'),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "is no image of a known format .SVG, which has no pixels.*; render",
        ),
        (b"%PDF-1.7\n", "is no image of a known format.*PDF.*; render its pages"),
        (zipped(), "is an archive; unpack it"),
        (gzip.compress(b"x", mtime=0), "is an archive; unpack it"),
        (b"\0" * 4096, "holds zeros alone, .*; restore it"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "is a video; extract its frames"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "is a camera's raw file, .*; develop it"),
        (b"FUJIFILMCCD-RAW 0201", "is a camera's raw file"),
        (bytes(range(128, 256)) * 9, "is no image of a known format; remove it"),
        (b"\xff\xd8\xff\xe0\0", "begins as a JPEG and cannot be decoded, .*; restore it, or conv"),
        (b"RIFF\x20\0\0\0WEBPVP9 ", "begins as a WebP and cannot be decoded"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_foreign__is_called_what_it_is(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=rf"^a\.jpg: {message}") as caught:
        decode_bytes(data, "a.jpg")
    assert "\n" not in str(caught.value)


PICTURE = (
    np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
)
PLUGINS = [("HEIF", "pillow_heif", "heif"), ("JXL", "pillow_jxl", "jxl")]


@pytest.mark.parametrize(("kind", "plugin", "extra"), PLUGINS)
def test_plugin__reads_its_format_under_any_name(kind: str, plugin: str, extra: str) -> None:
    found = pytest.importorskip(plugin, reason=f'pip install "dfl[{extra}]"')
    getattr(found, "register_heif_opener", lambda: None)()
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, kind, quality=95)
    decoded = decode_bytes(stream.getvalue(), "a.jpg").permute(1, 2, 0).numpy()
    assert np.abs(decoded.astype(int) - PICTURE).mean() < 12


@pytest.mark.parametrize(
    ("data", "plugin", "extra"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow_heif", "heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "pillow_heif", "heif"),
        (b"\xff\x0a\xfa\x1f", "pillow_jxl", "jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "pillow_jxl", "jxl"),
    ],
)
def test_plugin__that_is_not_installed_is_named(data, plugin, extra, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, plugin, None)
    monkeypatch.setattr(module.Image, "OPEN", {"PNG": module.Image.OPEN["PNG"]})
    module._known_formats.cache_clear()
    try:
        with pytest.raises(
            ImageError, match=rf'install it with `pip install "dfl\[{extra}\]"`, or'
        ):
            decode_bytes(data)
        assert module._known_formats() == ["PNG"]  # it claims nothing that it cannot read
    finally:
        module._known_formats.cache_clear()
