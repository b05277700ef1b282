"""A contact sheet of the demo: what is real above what imitates it."""

from collections.abc import Sequence
from typing import Final

from PIL import Image

from dfl.demo.crops import CROP_SIZE, imitated_crops
from dfl.demo.dataset import FAMILIES, cut_sheet
from dfl.demo.photographs import PHOTOGRAPHS, Photograph

GAP_PX: Final = 8


def draw_contact_sheet(
    photographs: Sequence[Photograph] = PHOTOGRAPHS, *, columns: int = 8
) -> Image.Image:
    """Draw real crops and, below each, its imitation by the GAN, the diffusion model and the VAE.

    Args:
        photographs: One block of four rows each.
        columns: How many crops of each photograph, at equal steps.

    Returns:
        The sheet, mode ``RGB``, on white.
    """
    rows = 1 + len(FAMILIES)
    block_height = rows * CROP_SIZE + GAP_PX
    size = (columns * CROP_SIZE, len(photographs) * block_height - GAP_PX)
    sheet = Image.new("RGB", size, "white")
    for i, photograph in enumerate(photographs):
        reals = [crop.image for crop in imitated_crops(photograph)]
        for row, images in enumerate([reals, *(cut_sheet(f, photograph) for f in FAMILIES)]):
            for column in range(columns):
                image = images[column * len(images) // columns]
                sheet.paste(image, (column * CROP_SIZE, i * block_height + row * CROP_SIZE))
    return sheet
