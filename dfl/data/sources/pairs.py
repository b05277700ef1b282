"""Dataset pairs: real image sets against generated ones."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dfl.data.containers.base import order_of
from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.data.sources.image_sets import FoundSide, ImageSet, scan_side
from dfl.data.sources.published import keep_published
from dfl.errors import ConfigError, ManifestError
from dfl.recipe import Plain, describe
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

        Rows of a table are sorted by number. The split is the one that a set was published with, as
        the names of its folders and containers say, and else empty.

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
        notes: list[str] = []
        for name, pair in self.pairs.items():
            real = _scan(pair.real, root, REAL, f"{name}.real")
            fake = _scan(pair.fake, root, FAKE, f"{name}.fake", real.folders)
            images = pd.concat([real.frame, fake.frame], ignore_index=True)
            _refuse_repeated(name, images, root)
            frames.append(images.assign(dataset=name))
            notes += real.notes + fake.notes
        frame, said = keep_published(pd.concat(frames, ignore_index=True), root)
        return Manifest.from_frame(frame, root, notes=tuple(dict.fromkeys(notes + said)))

    def recipe(self) -> Plain:
        """Describe the pairs; sets that say no split, as they were described before they could."""
        return _without_split(describe(self))


def _without_split(recipe: Plain) -> Plain:
    if isinstance(recipe, list):
        return [_without_split(each) for each in recipe]
    if isinstance(recipe, dict):
        kept = {key: value for key, value in recipe.items() if (key, value) != ("split", None)}
        return {key: _without_split(value) for key, value in kept.items()}
    return recipe


def _scan(
    sets: str | ImageSet | list[str | ImageSet],
    root: Path,
    label: int,
    option: str,
    content: frozenset[str] = frozenset(),
) -> FoundSide:
    several = sets if isinstance(sets, list) else [sets]
    if not several:
        raise ConfigError(f"{option}: has no source; give the path of an image set")
    found = [
        scan_side(ImageSet(each) if isinstance(each, str) else each, root, label, content)
        for each in several
    ]
    images = pd.concat([each.frame for each in found])
    keys = [order_of(path) for path in images["path"]]
    return FoundSide(
        images.iloc[sorted(range(len(keys)), key=keys.__getitem__)],
        [note for each in found for note in each.notes],
        frozenset().union(*(each.folders for each in found)),
    )


def _refuse_repeated(name: str, images: pd.DataFrame, root: Path) -> None:
    again = images["path"][images["path"].duplicated()]
    if again.empty:
        return
    where = f"pair {name!r}: {root / again.iloc[0]} is"
    if images["label"][images["path"] == again.iloc[0]].nunique() > 1:
        raise ManifestError(f"{where} on both sides; take it from one of them")
    raise ManifestError(f"{where} in two sources of one side; name its folder once")
