"""Image files without what says nothing about pixels, for decoders that stumble over it.

Texts, colour profiles and thumbnails may be broken, or larger than a decoder takes, where pixels
are sound. Who looks at the image does not see them; so they must not decide whether it is read.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS: Final = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PNG_LOOKS: Final = (b"tRNS", b"eXIf")  # transparency and orientation
_MOST_LOOKS: Final = 1 << 20

_WEBP_PIXELS: Final = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_WEBP_TEXTS: Final = (b"ICCP", b"EXIF", b"XMP ")

_TIFF_TAGS: Final = frozenset(
    # size, samples, compression, colours, strips, tiles, and what decoders need to know of them
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322}
    | {323, 324, 325, 332, 338, 339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521}
    | {529, 530, 531, 532}
)
# names, dates, resolution, XMP, ICC, EXIF, GPS, and what programs and cameras add
_TIFF_TEXTS: Final = frozenset(
    {269, 270, 271, 272, 280, 281, 282, 283, 285, 286, 287, 296, 297, 301, 305, 306, 315, 316, 318}
    | {319, 330, 333, 700}
    | {*range(32768, 65536)}
)
_EXIF_ITEM: Final = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)


def without_metadata(data: bytes) -> tuple[bytes, str] | None:
    """Leave out what a decoder of pixels does not need.

    What is left out of a PNG with a wrong checksum although it changes pixels is damage.

    Args:
        data: The content of an image file.

    Returns:
        The file without it, and the damage, empty where there is none; None where nothing can be
        left out.
    """
    damage, bare = "", b""
    with suppress(struct.error, IndexError):
        if data.startswith(_PNG):
            bare, damage = _bare_png(data)
        elif data.startswith(b"\xff\xd8"):
            bare = b"".join(_bare_jpeg(data))
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            bare = _bare_webp(data)
        elif data[:4] in (b"II*\0", b"MM\0*"):
            bare, damage = _bare_tiff(data)
        elif data[4:8] == b"ftyp":
            bare = _EXIF_ITEM.sub(rb"\1skip", data)
    return (bare, damage) if bare and bare != data else None


def _bare_png(data: bytes) -> tuple[bytes, str]:
    kept, damage = [_PNG], ""
    for kind, chunk in _png_chunks(data):
        if kind in _PNG_PIXELS:
            kept.append(chunk)
        elif kind in _PNG_LOOKS:
            (checksum,) = struct.unpack(">I", chunk[-4:])
            if zlib.crc32(chunk[4:-4]) == checksum and len(chunk) < _MOST_LOOKS:
                kept.append(chunk)
            elif kind == b"tRNS":
                damage = "wrong checksum in tRNS, whose transparency is left out"
    return b"".join(kept), damage


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at : at + length + 12]
        at += length + 12


def _bare_jpeg(data: bytes) -> Iterator[bytes]:
    """Leave out comments and the segments of applications but JFIF, Exif and Adobe's."""
    yield data[:2]
    at = 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        segment = data[at : at + 2 + length]
        looks = marker in (0xE0, 0xEE) or (marker == 0xE1 and segment[4:10] == b"Exif\0\0")
        if looks or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            yield segment
        at += 2 + length
    yield data[at:]


def _bare_webp(data: bytes) -> bytes:
    kept, at = [], 12
    (end,) = struct.unpack_from("<I", data, 4)
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        chunk = data[at : at + 8 + size]
        at += 8 + size + (size & 1)
        if kind in _WEBP_TEXTS:
            continue
        if kind not in _WEBP_PIXELS or len(chunk) < 8 + size:
            return b""  # it is no text that is broken
        if kind == b"VP8X":  # of its flags those of alpha and animation stay
            chunk = chunk[:8] + bytes([chunk[8] & 0x12]) + chunk[9:]
        kept.append(chunk + b"\0" * (len(chunk) & 1))
    if at != end + 8:
        return b""
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bare_tiff(data: bytes) -> tuple[bytes, str]:
    """Leave in the first directory the tags that pixels follow from; the rest stays in its place.

    A tag that is unknown here may have been one of them, so it is damage to leave it out.
    """
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    entries = [data[place + 2 + 12 * n : place + 14 + 12 * n] for n in range(count)]
    tags = [struct.unpack(f"{order}H", entry[:2])[0] for entry in entries]
    kept = [entry for tag, entry in zip(tags, entries, strict=True) if tag in _TIFF_TAGS]
    if len(kept) == count:
        return b"", ""
    unknown = [tag for tag in tags if tag not in _TIFF_TAGS and tag not in _TIFF_TEXTS]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + b"\0\0\0\0"
    damage = f"tag {unknown[0]} is not known, and left out" if unknown else ""
    return data[:place] + directory + data[place + len(directory) :], damage
