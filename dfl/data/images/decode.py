"""Decoding: from a file to 8-bit RGB, as a person sees the image."""

import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dfl.data.containers.base import ContainerError
from dfl.data.containers.content import read_bytes
from dfl.data.images.damage import Pixels, hearing_libtiff, jpeg_pixels, png_damage
from dfl.data.images.foreign import name_foreign
from dfl.data.images.metadata import without_metadata
from dfl.data.images.pictures import AmbiguousPictureError, full_picture, settle_picture
from dfl.errors import ImageError, one_line

MAX_PIXELS: Final = 256_000_000
"""The largest image that is decoded: above the 200 megapixels of the largest camera sensors on
sale, and far below what a file made to exhaust the memory claims to be."""

OnDamaged: TypeAlias = Literal["warn", "refuse"]

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

# What may be opened, the usual first: pictures of pixels alone. Others describe pages that another
# program draws (Ghostscript for EPS); none must run on files that strangers made. The last two come
# with plugins, which are imported for the first such image.
FORMATS: Final = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "MPO", "DIB"),
    *("ICO", "ICNS", "PCX", "SGI", "PSD", "QOI", "DDS", "HEIF", "JXL"),
)
_PLUGINS: Final = {
    "pillow_heif": re.compile(rb"....ftyp(?:hei[cxms]|hev[cmsx]|mif1|msf1)", re.DOTALL),
    "pillow_jxl": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
}
BAND_ROWS: Final = 256  # what is worked on at a time, where that takes several copies

# Pillow warns of broken metadata, which decide nothing here, once an image.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")

_opening = threading.Lock()


class UnreadableImageError(ImageError):
    """An image that cannot be decoded."""


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: RGB values in [0, 255], shape ``(3, H, W)``, uint8.
        damage: What the decoder got over, in its words; empty for a sound image.
    """

    pixels: Tensor
    damage: str


def decode(path: str | Path) -> Tensor:
    """Decode an image file.

    EXIF orientation is applied, transparency is laid on white, an animation gives its first frame,
    16-bit grey is scaled to 8 bits, and CMYK is converted without its colour profile (the inverted
    values of Adobe's JPEGs are put right). Colour profiles of RGB images are not applied either. Of
    several pictures in a file the full one is taken (see ``pictures``), and metadata that cannot be
    read, or are too large for a decoder, are left out.

    Args:
        path: A file in one of the common formats of pixels (``FORMATS``), or a place in a container
            (see ``content``).

    Returns:
        RGB values in [0, 255], shape ``(3, H, W)``, uint8.

    Raises:
        UnreadableImageError: If the file is missing, empty, truncated, no image, does not say which
            of its pictures is meant, or has more than ``MAX_PIXELS`` pixels.
    """
    return decode_bytes(read_image(path), str(path))


def read_image(path: str | Path) -> bytes:
    """Read the bytes of an image, which `decode_bytes` decodes.

    Args:
        path: A file, or a place in a container.

    Raises:
        UnreadableImageError: If it is missing or cannot be read.
    """
    try:
        return read_bytes(Path(path))
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
    return decode_noting(data, name).pixels


def decode_noting(data: bytes, name: str = "image", on_damaged: OnDamaged = "warn") -> Decoded:
    """Decode an image held in memory, and note the damage that its decoder got over.

    Args:
        data: The content of an image file.
        name: What an error calls the image.
        on_damaged: What a damaged image is: read, or an error.

    Raises:
        UnreadableImageError: As ``decode``, and if the image is damaged and that is an error.
    """
    if not data:
        raise UnreadableImageError(f"{name}: is an empty file; restore or remove it")
    with _reporting(name, data):
        try:
            decoded = _decode(data, name)
        except (ImageError, AmbiguousPictureError, MemoryError):
            raise
        except Exception:  # decoders raise nearly any class when a file is damaged
            bare = without_metadata(data)
            if bare is None:
                raise
            decoded = _decode(bare[0], name)
            decoded = decoded._replace(damage=bare[1] or decoded.damage)
    if decoded.damage and on_damaged == "refuse":
        raise UnreadableImageError(
            f"{name}: is damaged ({decoded.damage}); restore it, or read it all the same with "
            "on_damaged: warn"
        )
    return decoded


def decode_opened(image: Image.Image, name: str = "image") -> Tensor:
    """Take over an image that Pillow has opened or made, as ``decode`` does a file.

    Args:
        image: The image; it is loaded, and otherwise left as it is.
        name: What an error calls it.

    Raises:
        UnreadableImageError: As ``decode``.
    """
    with _reporting(name):
        _check_size(image, name)
        image.load()
        return _upright(np.asarray(_to_rgb(image)), image)


@contextmanager
def _reporting(name: str, data: bytes = b"") -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except AmbiguousPictureError as err:
        raise UnreadableImageError(f"{name}: {err.what}; {err.remedy}") from err
    except UnidentifiedImageError as err:
        what, remedy = name_foreign(data)
        raise UnreadableImageError(f"{name}: {what}; {remedy}") from err
    except Exception as err:
        raise UnreadableImageError(
            f"{name}: cannot be decoded ({one_line(err)}); restore or remove it"
        ) from err


def _decode(data: bytes, name: str) -> Decoded:
    data = full_picture(data)
    with _open(data) as image:
        _check_size(image, name)
        settle_picture(image, data)
        pixels, damage = None, ""
        if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
            pixels, damage = jpeg_pixels(data)
        if pixels is None:
            damage = _load(image) or damage
            if image.format == "PNG":
                damage = png_damage(data)
            pixels = np.asarray(_to_rgb(image))
        return Decoded(_upright(pixels, image), damage)


def _load(image: Image.Image) -> str:
    """Let Pillow decode an image; give the damage that it got over."""
    if not getattr(image, "use_load_libtiff", False):
        image.load()
        return ""
    lines: list[str] = []
    try:
        with hearing_libtiff() as lines:
            image.load()
    except OSError as err:
        if lines:  # Pillow gives a number
            raise OSError(one_line(lines[0])) from err
        raise
    return one_line(lines[0]) if lines else ""


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(
            f"{name}: has {width} x {height} pixels, more than the limit of {MAX_PIXELS}; "
            "make it smaller or remove it"
        )


def _upright(pixels: Pixels, image: Image.Image) -> Tensor:
    orientation = _orientation(image)  # only now: it may load some formats
    if orientation in UPRIGHT:
        pixels = UPRIGHT[orientation](pixels)
    # NumPy takes a third of torch's time to bring the colours to the front.
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))


def _open(data: bytes) -> Image.Image:
    # Pillow's own limit is one number for the whole process, below the largest cameras, and warns
    # before it refuses. It is lifted only while the header is read; the size is then checked here.
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=_known_formats(_plugin_of(data[:12])))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@cache
def _known_formats(plugin: str = "") -> list[str]:
    """List the formats that may be opened and can be here.

    Args:
        plugin: The module of a plugin that brings another one, where it is installed.
    """
    Image.init()
    if plugin and find_spec(plugin) is not None:
        module = import_module(plugin)  # that of JPEG XL registers itself
        getattr(module, "register_heif_opener", lambda: None)()
    return [name for name in FORMATS if name in Image.OPEN]


def _plugin_of(head: bytes) -> str:
    return next((module for module, magic in _PLUGINS.items() if magic.match(head)), "")


def _orientation(image: Image.Image) -> int:
    # Damaged metadata do not hide an image from a person, so they do not here.
    with suppress(Exception):
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _scaled(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    opaque = Image.new("RGB", image.size)
    for box in _bands(image):
        colours = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        opaque.paste(Image.alpha_composite(white, colours).convert("RGB"), box)
    return opaque


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Cut an image into bands of its whole width, from top to bottom."""
    for top in range(0, image.height, BAND_ROWS):
        yield 0, top, image.width, min(top + BAND_ROWS, image.height)


def _scaled(image: Image.Image) -> Image.Image:
    """Scale grey values of more than 8 bits: integers are taken as 16-bit, floats as in [0, 1]."""
    # Float images come in [0, 1] or, without a rule, in the range of 8 bits.
    factor = 1 / 257  # 65535 / 255
    if image.mode == "F":
        factor = 255.0 if np.fmax.reduce(np.asarray(image), axis=None) <= 1 else 1.0
    see_through = image.info.get("transparency")
    grey = np.empty((image.height, image.width), dtype=np.uint8)
    for box in _bands(image):
        values = np.asarray(image.crop(box)).astype(np.float64)
        band = np.nan_to_num(values * factor).clip(0, 255).round().astype(np.uint8)
        if isinstance(see_through, int):
            band[values == see_through] = 255
        grey[box[1] : box[3]] = band
    return Image.fromarray(grey)
