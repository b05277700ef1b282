"""Small pictures of image files."""

from pathlib import Path

from PIL import Image, ImageOps


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
    from dfl.data.images.decode import decode  # it takes seconds to import torch

    image = Image.fromarray(decode(path).permute(1, 2, 0).numpy())  # (H, W, 3)
    small = max(image.size) <= size_px
    method = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return ImageOps.contain(image, (size_px, size_px), method=method)
