"""Dataset pairs: real image sets against generated ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dfl.data.containers.base import order_of
from dfl.data.manifest.class_counts import log_counts
from dfl.data.manifest.duplicates import join_identical
from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.folders import ScannedImage, Source, manifest_of, scan_side
from dfl.errors import ConfigError, ManifestError
from dfl.types import FAKE, REAL

__all__ = ["Pair", "pair_manifest", "scan_pairs"]


@dataclass
class Pair:
    """Real images against fake ones.

    Args:
        real: One or several sources; a string is the path of a source. One source may serve several
            pairs.
        fake: The same for the generated images.
    """

    real: str | Source | list[str | Source]
    fake: str | Source | list[str | Source]


def pair_manifest(pairs: Mapping[str, Pair], root: Path) -> Manifest:
    """List the images of dataset pairs and find which belong together.

    Images for which the ``group`` patterns of their sources capture the same text in the same set
    share a group, on both sides of a pair, and so do files of the same content.

    Args:
        pairs: Pairs by name, which is the ``dataset`` of their rows.
        root: The folder under which sources are.

    Returns:
        A manifest with a row for each image of each pair, in the order of the pairs, real first,
        then by path (rows of a table by number). The split is empty but where a layout has folders
        for it.

    Raises:
        ConfigError: If there is no pair.
        DataError: If a source cannot be used.
        ManifestError: If an image is on both sides, or twice on one.
    """
    manifest = join_identical(scan_pairs(pairs, root))
    log_counts(manifest)
    return manifest


def scan_pairs(pairs: Mapping[str, Pair], root: Path) -> Manifest:
    """List the images of pairs as ``pair_manifest`` does, without reading any file."""
    if not pairs:
        raise ConfigError(
            "pairs: there is none; give at least one name with a real and a fake side"
        )
    root = Path(root)
    images: list[ScannedImage] = []
    names: list[str] = []
    for name, pair in pairs.items():
        of_pair = _scan(pair.real, root, REAL, f"{name}.real")
        of_pair += _scan(pair.fake, root, FAKE, f"{name}.fake")
        _refuse_shared(name, of_pair, root)
        images += of_pair
        names += [name] * len(of_pair)
    return manifest_of(images, names, root)


def _scan(
    sources: str | Source | list[str | Source], root: Path, label: int, place: str
) -> list[ScannedImage]:
    several = sources if isinstance(sources, list) else [sources]
    if not several:
        raise ConfigError(f"{place}: has no source; give the path of an image set")
    images = [
        image
        for source in several
        for image in scan_side(Source(source) if isinstance(source, str) else source, root, label)
    ]
    return sorted(images, key=lambda image: order_of(image.path))


def _refuse_shared(name: str, images: list[ScannedImage], root: Path) -> None:
    sides: dict[str, int] = {}
    for image in images:
        before = sides.setdefault(image.path, image.label)
        if before != image.label:
            raise ManifestError(
                f"pair {name!r}: {root / image.path} is on both sides; take it from one of them"
            )
    if len(sides) < len(images):
        seen: set[str] = set()
        twice = next(i.path for i in images if i.path in seen or seen.add(i.path))  # type: ignore[func-returns-value]
        raise ManifestError(
            f"pair {name!r}: {root / twice} is in two sources of one side; name its folder once"
        )
