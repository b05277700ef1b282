"""Shortcuts: what tells real from fake before a pixel is looked at.

A head that is trained on JPEGs against PNGs learns that difference, and a test on more of the same
praises it for it (Grommelt et al., "Fake or JPEG?", 2024).
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from PIL import Image, JpegImagePlugin

from dfl.data.images.decode import read_image
from dfl.data.manifest.manifest import Manifest
from dfl.threads import in_threads
from dfl.types import FAKE, REAL

MOST_IMAGES: Final = 100
"""How many images of each class of a dataset are looked at."""

FEWEST_IMAGES: Final = 8
TELLS_APART: Final = 0.9
"""Balanced accuracy from which a property is a shortcut."""

_THREADS: Final = 8  # reading waits for the disk, not for a core
_SHOWN: Final = 3
_OTHER: Final = "many others"
_LUMINANCE_SUM: Final = 3688  # of the table of ITU-T T.81, annex K.1, which is that of quality 50


@dataclass(frozen=True)
class Shortcut:
    """A property of the files of a dataset that all but gives the class away.

    Attributes:
        dataset: The dataset.
        name: The property: ``format``, ``size`` or ``JPEG quality``.
        accuracy: The balanced accuracy of going by it alone, in [0, 1].
        real: What most real files have.
        fake: What most fake files have.
    """

    dataset: str
    name: str
    accuracy: float
    real: str
    fake: str

    def __str__(self) -> str:
        return f"{self.name} (real: {self.real}; fake: {self.fake})"


def find_shortcuts(manifest: Manifest, *, most: int = MOST_IMAGES) -> list[Shortcut]:
    """Look whether format, size or JPEG quality alone tell the classes of a dataset apart.

    Of each class some images are looked at, the same ones each time; of files only the head is
    decoded. An image that cannot be opened is passed over: whoever decodes it says so.

    Args:
        manifest: The images.
        most: How many images of each class of a dataset are looked at.

    Returns:
        What is a shortcut, in the order of the datasets; no quality where the format is one.
    """
    frame = manifest.frame
    known = frame[frame["label"].isin([REAL, FAKE])]
    sampled = known.groupby(["dataset", "label"], sort=False, group_keys=False)
    frame = sampled[["dataset", "label", "path"]].apply(lambda rows: _spread(rows, most))
    looks = in_threads(
        lambda path: _look(manifest, path),
        frame["path"],
        threads=_THREADS,
        what="look at file formats",
        total=len(frame),
    )
    seen = pd.DataFrame(list(looks), columns=list(_PROPERTIES), index=frame.index)
    frame = pd.concat([frame, seen], axis=1).dropna()
    found = []
    for dataset, rows in frame.groupby("dataset", sort=False):
        counts = rows["label"].value_counts()
        if len(counts) < 2 or counts.min() < FEWEST_IMAGES:
            continue
        names: set[str] = set()
        for name in _PROPERTIES:
            if name == "JPEG quality" and "format" in names:
                continue
            accuracy = told_apart(rows[name], rows["label"])
            if accuracy >= TELLS_APART:
                real, fake = (_usual(rows[name][rows["label"] == label]) for label in (REAL, FAKE))
                found.append(Shortcut(str(dataset), name, accuracy, real, fake))
                names.add(name)
    return found


def shortcut_warning(found: list[Shortcut]) -> str:
    """Say in one line what shortcuts there are, and what to do.

    Args:
        found: At least one.
    """
    by_dataset: dict[str, list[str]] = {}
    for each in found:
        by_dataset.setdefault(each.dataset, []).append(str(each))
    named = [f"in {name} {' and '.join(each)}" for name, each in by_dataset.items()]
    more = f"; and in {len(named) - _SHOWN} more datasets" if len(named) > _SHOWN else ""
    least = min(shortcut.accuracy for shortcut in found)
    return (
        f"shortcut: {'; '.join(named[:_SHOWN])}{more}: that alone tells real from fake, with a "
        f"balanced accuracy of {least:.0%} or more; a head may learn it and nothing else, so give "
        "both classes one format, size and quality before you trust a score"
    )


def told_apart(values: "pd.Series[str]", label: "pd.Series[int]") -> float:
    """Compute how well a property tells two classes apart that says nothing of an order.

    Each image is given to the class in which its value is more frequent, itself left out; values
    that are there once count as one value.

    Args:
        values: The value of each image.
        label: ``REAL`` or ``FAKE``, both of them twice at least.

    Returns:
        The balanced accuracy, in [0, 1]; 0.5 is chance.
    """
    single = values.map(values.value_counts()) == 1
    table = pd.crosstab(values.mask(single, _OTHER), label).to_numpy(dtype=np.float64)
    totals = table.sum(axis=0)
    own = np.maximum(table - 1, 0) / (totals - 1)
    other = (table / totals)[:, ::-1]
    right = np.where(own == other, 0.5, own > other)
    return float((right * table / totals).sum() / 2)


def _spread(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Take rows at equal steps, so that no folder is left out."""
    if len(rows) <= most:
        return rows
    return rows.iloc[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _look(manifest: Manifest, path: str) -> list[str | None]:
    try:
        with Image.open(io.BytesIO(read_image(manifest.resolve(path)))) as image:
            return [look(image) for look in _PROPERTIES.values()]
    except Exception:  # whatever is wrong with it, decoding it says so
        return [None] * len(_PROPERTIES)


def _format(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


def _quality(image: Image.Image) -> str:
    """Estimate the quality that libjpeg's scale of tables gives, in [1, 100]."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or 0 not in image.quantization:
        return _format(image)
    scale = 100 * sum(image.quantization[0]) / _LUMINANCE_SUM
    quality = (200 - scale) / 2 if scale < 100 else 5000 / scale
    return f"{max(1, round(quality))}"


def _usual(values: "pd.Series[str]") -> str:
    counts = values.value_counts()
    if counts.iloc[0] == len(values):
        return str(counts.index[0])
    if counts.iloc[0] * 2 < len(values):
        return f"{len(counts)} different ones"
    return f"{counts.index[0]} in {counts.iloc[0] / len(values):.0%}"


_PROPERTIES: Final[dict[str, Callable[[Image.Image], str]]] = {
    "format": _format,
    "size": _size,
    "JPEG quality": _quality,
}
