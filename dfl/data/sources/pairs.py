"""Dataset pairs: real image sets against generated ones."""

from dataclasses import dataclass
from pathlib import Path

from dfl.data.containers.base import order_of
from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.data.sources.image_sets import ImageSet, ScannedImage, manifest_of, scan_side
from dfl.errors import ConfigError, ManifestError
from dfl.types import FAKE, REAL


@dataclass
class Pair:
    """Real images against fake ones.

    Args:
        real: One or several image sets; a string is the path of one. One set may serve several
            pairs.
        fake: The same for the generated images.
    """

    real: str | ImageSet | list[str | ImageSet]
    fake: str | ImageSet | list[str | ImageSet]


@dataclass
class Pairs(Source):
    """Dataset pairs: real image sets against generated ones.

    Images for which the ``group`` patterns of their sets capture the same text in the same set
    share a group, on both sides of a pair; with ``shared_groups``, in all sets that say so.

    Args:
        root: The folder under which image sets are; relative to the working directory.
        pairs: Pairs by name, which is the ``dataset`` of their images.
    """

    root: Path
    pairs: dict[str, Pair]

    @property
    def title(self) -> str:
        """The names of the pairs."""
        return "+".join(self.pairs)

    def scan(self) -> Manifest:
        """List the images of each pair, in the order of the pairs, real first, then by path.

        Rows of a table are sorted by number. The split is empty but where a layout has folders for
        it.

        Raises:
            ConfigError: If there is no pair.
            DataError: If an image set cannot be used.
            ManifestError: If an image is on both sides, or twice on one.
        """
        if not self.pairs:
            raise ConfigError(
                "pairs: there is none; give at least one name with a real and a fake side"
            )
        root = Path(self.root)
        images: list[ScannedImage] = []
        names: list[str] = []
        for name, pair in self.pairs.items():
            of_pair = _scan(pair.real, root, REAL, f"{name}.real")
            of_pair += _scan(pair.fake, root, FAKE, f"{name}.fake")
            _refuse_shared(name, of_pair, root)
            images += of_pair
            names += [name] * len(of_pair)
        return manifest_of(images, names, root)


def _scan(
    sets: str | ImageSet | list[str | ImageSet], root: Path, label: int, option: str
) -> list[ScannedImage]:
    several = sets if isinstance(sets, list) else [sets]
    if not several:
        raise ConfigError(f"{option}: has no source; give the path of an image set")
    images = [
        image
        for each in several
        for image in scan_side(ImageSet(each) if isinstance(each, str) else each, root, label)
    ]
    return sorted(images, key=lambda image: order_of(image.path))


def _refuse_shared(name: str, images: list[ScannedImage], root: Path) -> None:
    labels: dict[str, int] = {}
    for image in images:
        before = labels.get(image.path)
        if before == image.label:
            raise ManifestError(
                f"pair {name!r}: {root / image.path} is in two sources of one side; name its "
                "folder once"
            )
        if before is not None:
            raise ManifestError(
                f"pair {name!r}: {root / image.path} is on both sides; take it from one of them"
            )
        labels[image.path] = image.label
