"""Decoding: from a file to 8-bit RGB, as a person sees the image."""

import io
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dfl.data.content import ContainerError, read_bytes
from dfl.errors import ImageError

__all__ = ["MAX_PIXELS", "UnreadableImageError", "decode", "decode_bytes"]

MAX_PIXELS: Final = 256_000_000
"""The largest image that is decoded: above the 200 megapixels of the largest camera sensors on
sale, and far below what a file made to exhaust the memory claims to be."""

Pixels = npt.NDArray[np.uint8]
ORIENTATION_TAG: Final = 0x0112
# How an array (H, W, 3) that was stored with an EXIF orientation is turned upright.
UPRIGHT: Final[dict[int, Callable[[Pixels], Pixels]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}

_opening = threading.Lock()


class UnreadableImageError(ImageError):
    """An image that cannot be decoded, in one line even when a loader's worker met it.

    A loader's worker hands an error on by calling its class again with the whole traceback as text;
    only the message at its end is kept.

    Attributes:
        message: The line. The class has one too: torch then raises the error without holding on to
            it, which would keep the loader in a reference cycle and its workers waiting for
            seconds.
    """

    message: str = "an image cannot be decoded"

    def __init__(self, message: str) -> None:
        mark = f"{type(self).__module__}.{type(self).__qualname__}: "
        self.message = message.rpartition(mark)[2].strip()
        super().__init__(self.message)


def decode(path: str | Path) -> Tensor:
    """Decode an image file.

    EXIF orientation is applied, transparency is laid on white, an animation gives its first frame,
    16-bit grey is scaled to 8 bits, and CMYK is converted without its colour profile (the inverted
    values of Adobe's JPEGs are put right). Colour profiles of RGB images are not applied either.

    Args:
        path: A file in any format that Pillow reads, or a place in a container (see ``content``).

    Returns:
        RGB values in [0, 255], shape ``(3, H, W)``, uint8.

    Raises:
        UnreadableImageError: If the file is missing, empty, truncated, no image, or has more than
            ``MAX_PIXELS`` pixels.
    """
    try:
        return _decode(read_bytes(Path(path)), str(path))
    except FileNotFoundError as err:
        raise UnreadableImageError(f"{path}: no such image; restore it or remove its row") from err
    except ContainerError as err:
        raise UnreadableImageError(str(err)) from err
    except OSError as err:
        reason = err.strerror or str(err)
        raise UnreadableImageError(f"{path}: cannot be read ({reason})") from err


def decode_bytes(data: bytes, name: str = "image") -> Tensor:
    """Decode an image held in memory as ``decode`` does.

    Args:
        data: The content of an image file.
        name: What an error calls the image.

    Raises:
        UnreadableImageError: As ``decode``.
    """
    return _decode(data, name)


def _decode(data: bytes, name: str) -> Tensor:
    if not data:
        raise UnreadableImageError(f"{name}: is an empty file; restore or remove it")
    try:
        with _open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadableImageError(
                    f"{name}: has {width} x {height} pixels, more than the limit of {MAX_PIXELS}; "
                    "make it smaller or remove it"
                )
            pixels = _from_jpeg(data, image)
            if pixels is None:
                image.load()
                pixels = np.asarray(_to_rgb(image))
            orientation = _orientation(image)  # not before: it may load some formats
    except ImageError:
        raise
    except UnidentifiedImageError as err:
        raise UnreadableImageError(f"{name}: is no image of a known format; remove it") from err
    except Exception as err:  # decoders raise nearly any class when a file is damaged
        reason = " ".join(str(err).split()) or type(err).__name__
        raise UnreadableImageError(
            f"{name}: cannot be decoded ({reason}); restore or remove it"
        ) from err
    if orientation in UPRIGHT:
        pixels = UPRIGHT[orientation](pixels)
    # NumPy takes a third of torch's time to bring the colours to the front.
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))


def _from_jpeg(data: bytes, image: Image.Image) -> Pixels | None:
    """Decode the usual kinds of JPEG with the same library as Pillow, in less time.

    Returns:
        Pixels, shape ``(H, W, 3)``; None where Pillow is to decode, or to say what is wrong.
    """
    if image.format != "JPEG" or image.mode not in {"RGB", "L"}:
        return None
    try:
        # torchvision 0.29 announces that these will go, without a date: then Pillow decodes all.
        from torchvision.io import (  # type: ignore[import-untyped]
            ImageReadMode,
            decode_jpeg,
        )

        coded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        decoded: Pixels = decode_jpeg(coded, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
    except (ImportError, RuntimeError, DeprecationWarning):
        return None
    return decoded if decoded.shape[:2] == (image.height, image.width) else None


def _open(stream: io.BytesIO) -> Image.Image:
    # Pillow's own limit is one number for the whole process, below the largest cameras, and warns
    # before it refuses. It is lifted only while the header is read; the size is then checked here.
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
    # Damaged metadata do not hide an image from a person, so they do not here.
    with suppress(Exception):
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _scaled(image).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Scale grey values of more than 8 bits: integers are taken as 16-bit, floats as in [0, 1]."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        # Float images come in [0, 1] or, without a rule, in the range of 8 bits.
        scaled = values * 255 if values.size and np.nanmax(values) <= 1 else values
    else:
        scaled = values / 257  # 65535 / 255
    grey = np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
    see_through = image.info.get("transparency")
    if isinstance(see_through, int):
        grey[values == see_through] = 255
    return Image.fromarray(grey)
