"""Dataset pairs: real image sets against generated ones."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dfl.data.containers.base import order_of
from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.data.sources.image_sets import ImageSet, scan_side
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
        frames = []
        for name, pair in self.pairs.items():
            real = _scan(pair.real, root, REAL, f"{name}.real")
            fake = _scan(pair.fake, root, FAKE, f"{name}.fake")
            images = pd.concat([real, fake], ignore_index=True)
            _refuse_repeated(name, images, root)
            frames.append(images.assign(dataset=name))
        return Manifest.from_frame(pd.concat(frames), root)


def _scan(
    sets: str | ImageSet | list[str | ImageSet], root: Path, label: int, option: str
) -> pd.DataFrame:
    several = sets if isinstance(sets, list) else [sets]
    if not several:
        raise ConfigError(f"{option}: has no source; give the path of an image set")
    frames = [
        scan_side(ImageSet(each) if isinstance(each, str) else each, root, label)
        for each in several
    ]
    images = pd.concat(frames)
    keys = [order_of(path) for path in images["path"]]
    return images.iloc[sorted(range(len(keys)), key=keys.__getitem__)]


def _refuse_repeated(name: str, images: pd.DataFrame, root: Path) -> None:
    again = images["path"][images["path"].duplicated()]
    if again.empty:
        return
    where = f"pair {name!r}: {root / again.iloc[0]} is"
    if images["label"][images["path"] == again.iloc[0]].nunique() > 1:
        raise ManifestError(f"{where} on both sides; take it from one of them")
    raise ManifestError(f"{where} in two sources of one side; name its folder once")
