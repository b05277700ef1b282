"""Image files that are not as they should be."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def damaged_jpeg(file: Path, seed: int = 0) -> None:
    """Write a JPEG that lost bytes in its middle, which a decoder gets over.

    Args:
        file: Where to, whatever its ending.
        seed: Of its picture.
    """
    values = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).resize((96, 64), Image.Resampling.BICUBIC).save(stream, "JPEG")
    data = stream.getvalue()
    middle = data.index(b"\xff\xda") + 300
    file.write_bytes(data[:middle] + data[middle + 400 :])
