"""What decoders get over: found without a line of theirs on the terminal.

A JPEG is decoded by libjpeg-turbo, which says what it meets for each image. libtiff says it on the
standard error of the process, where it is heard. Nobody compares the checksums of a PNG's pixels.
"""

import os
import re
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg

from dfl.errors import one_line

Pixels = npt.NDArray[np.uint8]

END: Final = b"\xff\xd9"
# What libjpeg warns of and pixels do not suffer from.
_HARMLESS: Final = ("JFIF", "Adobe color transform", "Invalid SOS parameters for sequential")
# The beginnings of libjpeg's warnings; all else that it says are errors.
_CUT: Final = "Premature end of JPEG"
_WARNINGS: Final = (
    *("Corrupt JPEG data", _CUT, "Inconsistent progression", "Warning:", "Unknown Adobe"),
    "Invalid SOS parameters for sequential",
)
_LIBTIFF: Final = re.compile(
    rb"(?:[A-Za-z_]\w*|tempfile\.tif): [^\n]*\.\n"
)  # its function, what it says, a stop

_FRAMES: Final = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_PROGRESSIVE: Final = (0xC2, 0xCA)
_SCAN: Final = 0xDA
_AFTER_SCAN: Final = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")  # a marker that ends it
_ALL: Final = (1 << 64) - 1  # coefficients of a block

_listening = threading.Lock()


def jpeg_pixels(data: bytes) -> tuple[Pixels | None, str]:
    """Decode a JPEG that is grey or in colours, as Pillow does and in less time.

    Args:
        data: The content of the file.

    Returns:
        Pixels, shape ``(H, W, 3)``; None where the file is cut short or of a rare kind, so that
        Pillow is to decode it or to say what is wrong. And the damage, empty where there is none.
    """
    try:
        return simplejpeg.decode_jpeg(data, "RGB"), _missing_scans(data)
    except ValueError as err:
        said = one_line(err)
    if not said.startswith(_WARNINGS):
        return None, ""
    whole = data + END if said.startswith(_CUT) else data  # it may lack its last two bytes alone
    damage = _missing_scans(whole)
    if whole is not data and damage:
        return None, said
    if whole is data and not any(each in said for each in _HARMLESS):
        damage = said
    try:
        return simplejpeg.decode_jpeg(whole, "RGB", strict=whole is not data), damage
    except ValueError:
        return None, damage if whole is data else said


def png_damage(data: bytes) -> str:
    """Compare the checksums of a PNG's pixels, which its decoder does not.

    Args:
        data: The content of a file that could be decoded.

    Returns:
        The damage, empty where there is none.
    """
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            checksum = int.from_bytes(view[end : end + 4], "big")
            if zlib.crc32(view[at + 4 : end]) != checksum:
                return "wrong checksum in IDAT"
        at = end + 4
    return ""


def _missing_scans(data: bytes) -> str:
    """Say whether an image that comes in several scans lacks some, which a decoder does not say."""
    left: dict[int, int] = {}  # by part of the colours, the bits of coefficients still to come
    is_progressive = False
    for marker, content in _segments(data):
        if marker in _FRAMES:
            is_progressive = marker in _PROGRESSIVE
            left = dict.fromkeys(content[6::3][: content[5]], _ALL)
        elif not is_progressive and content[0] == len(left):
            return ""  # all of it is in one scan
        else:
            first, last, precision = content[-3], content[-2], content[-1] & 15
            came = (2 << last) - (1 << first) if is_progressive else _ALL
            for part in content[1:-3:2]:
                if part in left and (precision == 0 or not is_progressive):
                    left[part] &= ~came
    return "scans are missing" if any(left.values()) else ""


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Go through the headers of the frame and of the scans of a JPEG."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != END[1]:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES or marker == _SCAN:
            content = data[at + 4 : end]
            if len(content) < 6:
                return
            yield marker, content
        if marker == _SCAN:
            found = _AFTER_SCAN.search(data, end)
            end = found.start() if found else len(data)
        at = end


@contextmanager
def hearing_libtiff() -> Iterator[list[str]]:
    """Keep what libtiff says from the terminal.

    It speaks for the process, so one image at a time is listened to. What others say meanwhile is
    passed on.

    Yields:
        A list that holds its lines when the block has ended.
    """
    lines: list[str] = []
    with _listening:
        try:
            terminal = os.dup(2)
        except OSError:  # a process without standard error
            yield lines
            return
        ear = _ear(os.getpid())
        os.dup2(ear, 2)
        try:
            yield lines
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if size := os.fstat(ear).st_size:
                said = os.pread(ear, size, 0)
                os.ftruncate(ear, 0)
                os.lseek(ear, 0, os.SEEK_SET)
                lines += (each.decode("utf-8", "replace") for each in _LIBTIFF.findall(said))
                if others := _LIBTIFF.sub(b"", said):
                    os.write(2, others)


@lru_cache(maxsize=1)
def _ear(process: int) -> int:
    """Open a file to listen with, for as long as the process lives; a forked one has its own."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
