"""Copies of photographs as files: lossless, and each says what made it.

The text in a PNG is what a run that goes on compares; no decoder of dfl looks at it. Copies and the
photographs beside them carry one alike, so it tells no class.
"""

import io
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from PIL import Image, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from dfl.data.images.damage import png_damage
from dfl.files import writing

_MADE_OF: Final = "made-of"
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"


class JpegTables(NamedTuple):
    """How a JPEG was compressed.

    Attributes:
        mode: Pillow's mode, ``RGB`` or ``L``.
        tables: The quantisation tables, 64 numbers each.
        subsampling: Pillow's number of the subsampling of colours; -1 for that of ``L``.
    """

    mode: str
    tables: list[list[int]]
    subsampling: int


def jpeg_tables(data: bytes) -> JpegTables | None:
    """Read how a file was compressed.

    Args:
        data: The content of an image file.

    Returns:
        Its tables; None where it is no JPEG of colours or of grey.
    """
    with Image.open(io.BytesIO(data)) as image:
        if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode not in ("RGB", "L"):
            return None
        sampling = JpegImagePlugin.get_sampling(image)
        return JpegTables(
            image.mode, [list(each) for each in image.quantization.values()], sampling
        )


def recompressed(image: Tensor, like: JpegTables) -> Tensor:
    """Compress an image as another one was, by the same tables, and decode it.

    Args:
        image: uint8, ``(3, H, W)``.
        like: How the other one was compressed.

    Returns:
        uint8, ``(3, H, W)``.
    """
    stream = io.BytesIO()
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).convert(like.mode)
    pixels.save(stream, "JPEG", qtables=like.tables, subsampling=like.subsampling)
    with Image.open(stream) as reopened:
        return torch.from_numpy(np.array(reopened.convert("RGB"))).permute(2, 0, 1).contiguous()


def write_copy(image: Tensor, file: Path, made_of: str) -> None:
    """Write a PNG that is there whole or not at all.

    Args:
        image: uint8, ``(3, H, W)``.
        file: Where it goes; its folder is made too.
        made_of: What it says of itself.
    """
    note = PngInfo()
    note.add_text(_MADE_OF, made_of)
    with writing(file) as partial:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(partial, "PNG", pnginfo=note)


def size_of_copy(file: Path) -> tuple[int, int]:
    """Read height and width of a copy, in pixels."""
    with Image.open(file) as image:
        return image.height, image.width


def read_note(file: Path) -> str | None:
    """Read what a copy says of itself; its pixels are compared with their checksums.

    Args:
        file: A file that may not be there.

    Returns:
        What was given to `write_copy`, empty where another program wrote the file; None where it is
        missing or damaged.
    """
    try:
        data = file.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            made_of = str(image.info.get(_MADE_OF, ""))
    except OSError:
        return None
    return made_of if data.endswith(_END) and not png_damage(data) else None
