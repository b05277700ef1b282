"""Contact sheets: many images at a glance, each with a line below it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from dfl.errors import ImageError

__all__ = ["contact_sheet", "thumbnail"]

_GAP_PX: Final = 8
_PAPER: Final = (255, 255, 255)
_INK: Final = (30, 30, 30)
_EMPTY: Final = (225, 225, 225)

logger = logging.getLogger(__name__)


def contact_sheet(
    images: Sequence[Path | Image.Image],
    captions: Sequence[str] = (),
    *,
    columns: int = 8,
    size_px: int = 112,
) -> Image.Image:
    """Lay images out in rows, scaled to fit a square each, never cropped.

    Args:
        images: Files or images, at least one. A file that cannot be decoded leaves a grey square
            and a warning in the log.
        captions: Nothing, or one text an image; lines are split at newlines and cut to the width.
        columns: Images in a row.
        size_px: Side of a square.

    Returns:
        An RGB image.

    Raises:
        ValueError: If there is no image, or captions are not as many as images.
    """
    if not images:
        raise ValueError("a contact sheet of 0 images; give at least one")
    if captions and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images; give one an image")
    columns = min(columns, len(images))
    font_px = max(9, size_px // 10)
    font = ImageFont.load_default(size=font_px)
    line_px = int(font_px * 1.3)
    lines = max((len(caption.splitlines()) for caption in captions), default=0)
    cell_w, cell_h = size_px + _GAP_PX, size_px + lines * line_px + _GAP_PX
    n_rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * cell_w + _GAP_PX, n_rows * cell_h + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left = _GAP_PX + index % columns * cell_w
        top = _GAP_PX + index // columns * cell_h
        tile = _tile(image, size_px)
        sheet.paste(tile, (left + (size_px - tile.width) // 2, top + (size_px - tile.height) // 2))
        for number, line in enumerate(captions[index].splitlines() if captions else []):
            at = (left, top + size_px + 2 + number * line_px)
            draw.text(at, _cut(line, font, size_px), font=font, fill=_INK)
    return sheet


def thumbnail(path: Path, *, size_px: int = 112) -> Image.Image:
    """Decode an image file as a person sees it, and scale it to fit a square.

    Args:
        path: The file.
        size_px: Side of the square; smaller images are enlarged without smoothing.

    Returns:
        An RGB image whose longer side is ``size_px``.

    Raises:
        ImageError: If the file cannot be decoded.
    """
    from dfl.data.images.decode import decode  # it brings Lightning, which other sheets do without

    pixels = decode(path).permute(1, 2, 0)  # (H, W, 3)
    return _fit(Image.fromarray(pixels.numpy()), size_px)


def _tile(image: Path | Image.Image, size_px: int) -> Image.Image:
    if isinstance(image, Image.Image):
        return _fit(image.convert("RGB"), size_px)
    try:
        return thumbnail(image, size_px=size_px)
    except (ImageError, OSError) as err:
        logger.warning("no thumbnail: %s", err)
        return Image.new("RGB", (size_px, size_px), _EMPTY)


def _fit(image: Image.Image, size_px: int) -> Image.Image:
    small = max(image.size) <= size_px
    method = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return ImageOps.contain(image, (size_px, size_px), method=method)


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength(line + "…") > width_px:
        line = line[:-1]
    return line + "…"
