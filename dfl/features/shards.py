"""What an extraction has to do, cut into shards so that it can be shared, interrupted and resumed.

An image that serves several dataset pairs goes through the backbones once. A shard is a fixed range
of images in fixed batches, in one file that says whether it is still what it was; so its content
does not depend on which process computes it or on how many there are.
"""

import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dfl.features.hashing import HashedImages
from dfl.features.matrices import Matrix
from dfl.features.store import FeatureStore
from dfl.files import writing
from dfl.recipe import Plain, Recipe, fingerprint_of
from dfl.types import FeatureSpec, spec_to_plain

logger = logging.getLogger(__name__)

_SHARD_ROWS: Final = 128
_THREADS: Final = 8
_CHECKSUM: Final = "sha256"
_NAME: Final = re.compile(r"shard-([0-9]+)-[0-9]{7}\.safetensors")


def method_fingerprint(spec: FeatureSpec, *, preprocess: Plain, execution: Plain) -> str:
    """Identify how features are made of an image, by everything that decides it.

    Args:
        spec: The layers, whose fingerprints stand for architecture, weights, preprocessing and
            layer.
        preprocess: The description of the crop and the transforms.
        execution: How the backbones are run: their numeric precision and what carries it out.
    """
    made_by: Recipe = {"layers": spec_to_plain(spec), "preprocess": preprocess, "run": execution}
    return fingerprint_of(made_by)


def extraction_fingerprint(images: HashedImages, method: str) -> str:
    """Identify the features that an extraction makes, wherever its images lie.

    Args:
        images: The images.
        method: What `method_fingerprint` gives.
    """
    return fingerprint_of({"images": images.fingerprint, "method": method})


@dataclass(frozen=True)
class ExtractionPlan:
    """The shards of one extraction.

    Attributes:
        out: The feature folder to make.
        hashed: The images.
        method: What `method_fingerprint` says of how features are made.
        batch_size: Images in a batch.
        spec: The layers.
    """

    out: Path
    hashed: HashedImages = field(repr=False, compare=False)
    method: str
    batch_size: int
    spec: FeatureSpec
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        fingerprint = extraction_fingerprint(self.hashed, self.method)
        object.__setattr__(self, "fingerprint", fingerprint)

    @property
    def images(self) -> int:
        """How many distinct images there are."""
        return len(self.hashed.each)

    @property
    def folder(self) -> Path:
        """Where the shards are kept until all are there."""
        return self.out.with_name(f".{self.out.name}.{self.fingerprint[:12]}")

    @property
    def shard_size(self) -> int:
        """Images in a shard: whole batches."""
        return self.batch_size * max(1, _SHARD_ROWS // self.batch_size)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.images // self.shard_size)

    def rows(self, shard: int) -> range:
        """Give the images of a shard, as positions among the distinct images."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.images))

    def batches(self, shard: int) -> Iterator[range]:
        """Cut a shard into its batches: the images of each, as positions among the distinct."""
        rows = self.rows(shard)
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]

    def file(self, shard: int) -> Path:
        """Name the file of a shard."""
        return self.folder / f"shard-{self.batch_size}-{shard:07d}.safetensors"

    def mark(self, token: str) -> Path:
        """Name the file that tells other processes that they see the folder of this run."""
        return self.folder / f"run-{token}"

    # Beginning, or going on

    def start(self) -> "ExtractionPlan":
        """Begin the extraction, or go on with one that was interrupted; for who holds its lock.

        Returns:
            The plan, its folder made; where a shard is kept, with the batches of that.
        """
        begun = self.begun()
        if begun != self:
            logger.warning(
                "%s: goes on in batches of %d, as it was begun, not of %d; remove the folder to "
                "begin anew",
                self.folder,
                begun.batch_size,
                self.batch_size,
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        return begun

    def take_over(self, found: Mapping[int, Path]) -> None:
        """Keep shards of the same images that others have, interrupted ones of other images.

        An image that could not be read is repaired or removed, and the rest is as it was.

        Args:
            found: What `elsewhere` gives.
        """
        for shard, file in found.items():
            _link(file, self.file(shard))
        if found:
            logger.info(
                "%s: %d of %d shards were made of the same images before and are kept",
                self.out,
                len(found),
                self.shards,
            )

    def remove(self, damaged: Sequence[int]) -> None:
        """Remove shards that are not as they were written; for who holds the lock of the folder.

        The writer would take one for what another process has written.
        """
        for shard in damaged:
            self.file(shard).unlink(missing_ok=True)
        if damaged:
            logger.info(
                "%s: %d of %d shards are damaged; they are made anew",
                self.folder,
                len(damaged),
                self.shards,
            )

    def begun(self) -> "ExtractionPlan":
        """Give the plan whose shards are there; their batches may be of another size."""
        there = [found for path in _files(self.folder) if (found := _NAME.fullmatch(path.name))]
        sizes = Counter(int(found[1]) for found in there)
        if not sizes or self.batch_size in sizes:
            return self
        return replace(self, batch_size=sizes.most_common(1)[0][0])

    def others(self) -> list[Path]:
        """List the folders of extractions into `out` that were interrupted and are not this one."""
        kind = re.compile(re.escape(f".{self.out.name}.") + "[0-9a-f]{12}")
        return sorted(
            path
            for path in _files(self.out.parent)
            if kind.fullmatch(path.name) and path != self.folder and path.is_dir()
        )

    def there(self) -> list[int]:
        """List the shards that are there; none is read."""
        names = {path.name for path in _files(self.folder)}
        return [shard for shard in range(self.shards) if self.file(shard).name in names]

    def missing(self) -> list[int]:
        """List the shards that are not there yet; none is read."""
        return sorted(set(range(self.shards)) - set(self.there()))

    def damaged(self, shards: Sequence[int]) -> list[int]:
        """Read shards, and list those that are not as they were written."""
        with ThreadPoolExecutor(_THREADS) as pool:
            whole = list(pool.map(self._is_whole, shards))
        return [shard for shard, good in zip(shards, whole, strict=True) if not good]

    def pending(self) -> list[int]:
        """List the shards that are not there, or not as they were written; all others are read."""
        return sorted([*self.missing(), *self.damaged(self.there())])

    def elsewhere(self, missing: Sequence[int]) -> dict[int, Path]:
        """Find shards of the same images in the folders of others; by shard, their files."""
        found: dict[int, Path] = {}
        for other in self.others():
            wanted = [shard for shard in missing if shard not in found]
            with ThreadPoolExecutor(_THREADS) as pool:
                same = list(pool.map(self._is_whole, wanted, repeat(other)))
            for shard, is_same in zip(wanted, same, strict=True):
                if is_same:
                    found[shard] = other / self.file(shard).name
        return found

    def pending_images(self, *, advice: str) -> int:
        """Count the images that the backbones have still to see; nothing is begun.

        Args:
            advice: What to do where the folder holds other features.

        Raises:
            FeatureError: If it does.
        """
        if FeatureStore.find(self.out, self.fingerprint, overwrite=False, advice=advice):
            return 0
        begun = self.begun()
        missing = begun.pending()
        elsewhere = begun.elsewhere(missing)
        return sum(len(begun.rows(shard)) for shard in missing if shard not in elsewhere)

    # Shards

    def write(self, shard: int, features: Mapping[str, Matrix]) -> None:
        """Write a shard, complete or not at all; a power cut may damage it, which is found.

        Args:
            shard: Which one.
            features: By layer, float32 ``(n, D)``.

        Raises:
            OSError: If the disk does not take it.
        """
        content = save(dict(features), {_CHECKSUM: self._checksum(shard, features)})
        with writing(self.file(shard), synced=False) as partial:
            partial.write_bytes(content)

    def read(self, shard: int, folder: Path | None = None) -> dict[str, Matrix] | None:
        """Read a shard: by layer ``(n, D)``; None if it is damaged, or of something else.

        Args:
            shard: Which one.
            folder: Where it is; in the plan's own folder by default.
        """
        file = (folder or self.folder) / self.file(shard).name
        try:
            with safe_open(file, framework="np") as content:
                names = {layer.name for layer in self.spec}
                if set(content.keys()) != names:
                    return None
                features: dict[str, Matrix] = {name: content.get_tensor(name) for name in names}
                checksum = (content.metadata() or {}).get(_CHECKSUM)
        except (FileNotFoundError, SafetensorError, ValueError):
            return None  # any other error may pass: what is there must not be thrown away for it
        count = len(self.rows(shard))
        fits = all(
            features[layer.name].shape == (count, layer.dim)
            and features[layer.name].dtype == np.float32
            for layer in self.spec
        )
        return features if fits and checksum == self._checksum(shard, features) else None

    def _checksum(self, shard: int, features: Mapping[str, npt.NDArray[np.float32]]) -> str:
        """Hash a shard with what it is of, so that none is taken for another."""
        rows = self.rows(shard)
        images = sha256(self.hashed.each[rows.start : rows.stop].tobytes()).hexdigest()
        digest = sha256(f"{self.method}:{self.batch_size}:{images}".encode())
        for name in sorted(features):
            digest.update(f"{name}:{features[name].shape}:".encode())
            digest.update(np.ascontiguousarray(features[name]).data)
        return digest.hexdigest()

    def _is_whole(self, shard: int, folder: Path | None = None) -> bool:
        return self.read(shard, folder) is not None


def _link(source: Path, target: Path) -> None:
    with writing(target, synced=False) as partial:
        try:
            partial.hardlink_to(source)
        except OSError:  # a file system without such links
            shutil.copyfile(source, partial)


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
