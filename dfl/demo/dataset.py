"""Lay the demo's images out as files with a manifest: three pairs, one for each family of fakes."""

import tempfile
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from PIL import Image

from dfl.data.manifest.manifest import Manifest
from dfl.demo.crops import CROP_SIZE, cut_crops, imitated_crops
from dfl.demo.photographs import PHOTOGRAPHS, Photograph
from dfl.errors import ConfigError
from dfl.folders import locked, recover_folder, replace_folder
from dfl.types import FAKE, REAL

FAMILIES: Final = ("gan", "diffusion", "vae")
"""The generators; each has a folder of fakes and a dataset ``demo_<family>``."""

MANIFEST_NAME: Final = "manifest.csv"

Row = dict[str, str | int]


def write_demo(folder: str | Path) -> Manifest:
    """Write all images of the demo, real and generated, with one encoder, and their manifest.

    The real images are cut from the photographs of installed wheels, the generated ones from
    the sheets of this package. All are 8-bit RGB PNGs, ``CROP_SIZE`` square. A folder that is
    already complete is left as it is; an incomplete or altered one is made again as a whole.

    Args:
        folder: ``real/<photograph>/``, ``<family>/<photograph>/`` and ``manifest.csv`` go here.

    Returns:
        The manifest: a pair ``demo_<family>`` for each family, the real images in all three;
        ``group`` is the photograph, and ``split`` the photograph's.

    Raises:
        ConfigError: If a photograph is not installed, the package's sheets do not fit the
            crops, or the folder holds files that are not the demo's.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # made in any case: it takes two seconds, and shows whether anything differs
    beside = tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent)
    with locked(folder), beside:
        recover_folder(folder)
        new = Path(beside.name, "demo")
        _write_all(new)
        wanted, found = _files_of(new), _files_of(folder)
        if foreign := sorted(found.keys() - wanted.keys()):
            raise ConfigError(
                f"{str(folder)!r} holds other files than the demo's, such as {foreign[0]!r}: "
                "give a new or an empty folder"
            )
        if found.keys() != wanted.keys() or any(
            found[name].read_bytes() != path.read_bytes() for name, path in wanted.items()
        ):
            replace_folder(new, folder)
    return Manifest.read(folder / MANIFEST_NAME)


def cut_sheet(family: str, photograph: Photograph) -> list[Image.Image]:
    """Cut the generated images of one photograph from the sheet that the package ships.

    Args:
        family: One of ``FAMILIES``.
        photograph: What they imitate.

    Returns:
        As many images as ``imitated_crops`` returns, in the same order, mode ``RGB``.

    Raises:
        ConfigError: If the sheet is missing or has another size.
    """
    number = len(imitated_crops(photograph))
    name = f"images/{family}/{photograph.name}.png"
    with as_file(files("dfl.demo") / name) as path:
        if not path.is_file():
            raise ConfigError(f"dfl/demo/{name} is not in the package: install dfl again")
        with Image.open(path) as image:
            sheet = image.convert("RGB")
    if sheet.size != (CROP_SIZE, CROP_SIZE * number):
        raise ConfigError(
            f"dfl/demo/{name} is {sheet.width} by {sheet.height} pixels, not {CROP_SIZE} by "
            f"{CROP_SIZE * number}: make it with python -m dfl.demo.generators.train"
        )
    tops = range(0, sheet.height, CROP_SIZE)
    return [sheet.crop((0, top, CROP_SIZE, top + CROP_SIZE)) for top in tops]


def _write_all(folder: Path) -> None:
    """Write images and manifest into a folder that does not exist yet."""
    rows: list[Row] = []
    for family in FAMILIES:
        for photograph in PHOTOGRAPHS:
            for generator in ("real", family):
                rows += _rows_of(photograph, family, generator)
    for path, image in _images():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target, format="PNG")
    Manifest.from_rows(rows, folder).write(folder / MANIFEST_NAME)


def _images() -> Iterator[tuple[str, Image.Image]]:
    """Yield every image with its path in the demo's folder."""
    for photograph in PHOTOGRAPHS:
        for crop in cut_crops(photograph):
            yield f"real/{photograph.name}/{crop.name}.png", crop.image
        for family in FAMILIES:
            drawn = cut_sheet(family, photograph)
            for crop, image in zip(imitated_crops(photograph), drawn, strict=True):
                yield f"{family}/{photograph.name}/{crop.name}.png", image


def _rows_of(photograph: Photograph, family: str, generator: str) -> list[Row]:
    """Describe the images of one photograph on one side of one pair."""
    is_real = generator == "real"
    crops = cut_crops(photograph) if is_real else imitated_crops(photograph)
    return [
        {
            "path": f"{generator}/{photograph.name}/{crop.name}.png",
            "label": REAL if is_real else FAKE,
            "dataset": f"demo_{family}",
            "generator": generator,
            "split": photograph.split,
            "group": photograph.name,
        }
        for crop in crops
    ]


def _files_of(folder: Path) -> dict[str, Path]:
    """List a folder's files by their POSIX path in it; none if it does not exist."""
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
