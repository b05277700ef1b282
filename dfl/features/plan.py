"""What an extraction has to do, cut into shards so that it can be shared, interrupted and resumed.

An image that serves several dataset pairs goes through the backbones once. A shard is a fixed range
of images in fixed batches, so its content does not depend on which process computes it or on how
many there are.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from typing import Final

from dfl.features.images import HashedImages
from dfl.features.shard import read_shard
from dfl.features.store import FEATURES, FeatureStore, Matrix
from dfl.files import writing
from dfl.recipe import Plain, Recipe, fingerprint_of
from dfl.types import FeatureSpec

__all__ = [
    "REPLACE",
    "ExtractionPlan",
    "extraction_fingerprint",
    "finished_store",
    "method_digest",
    "pending_images",
]

logger = logging.getLogger(__name__)

_SHARD_ROWS: Final = 128
REPLACE: Final = "name another folder with --out, or replace them with --overwrite"

_PLAN: Final = "plan.json"
_THREADS: Final = 8


def method_digest(spec: FeatureSpec, *, preprocess: Plain, run: Plain) -> str:
    """Identify how features are made of an image, by everything that decides it.

    Args:
        spec: The layers, whose fingerprints stand for architecture, weights, preprocessing and
            layer.
        preprocess: The description of the crop and the perturbations.
        run: How the backbones are run: their numeric precision and what carries it out.

    Returns:
        A hexadecimal SHA-256.
    """
    layers: list[Plain] = [dict(asdict(layer)) for layer in spec]
    return fingerprint_of({"layers": layers, "preprocess": preprocess, "run": run})


def extraction_fingerprint(images: str, method: str) -> str:
    """Identify the features that an extraction makes.

    Args:
        images: The digest of `hash_images`; the folder of the images does not count.
        method: What `method_digest` gives.

    Returns:
        A hexadecimal SHA-256.
    """
    return fingerprint_of({"images": images, "method": method})


@dataclass(frozen=True)
class ExtractionPlan:
    """The shards of one extraction.

    Attributes:
        out: The feature folder to make.
        hashed: The images.
        method: What `method_digest` says of how features are made.
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
        fingerprint = extraction_fingerprint(self.hashed.digest, self.method)
        object.__setattr__(self, "fingerprint", fingerprint)

    @property
    def images(self) -> int:
        """How many distinct images there are."""
        return len(self.hashed.each)

    def start(self) -> "ExtractionPlan":
        """Begin the extraction, or go on with one that was interrupted.

        Returns:
            The plan, its folder made; an interrupted extraction that has kept a shard goes on with
            the size of batches that it was begun with.
        """
        begun = self.begun()
        if begun is not None and (begun == self or len(begun.missing()) < begun.shards):
            if begun.batch_size != self.batch_size:
                logger.warning(
                    "%s: goes on in batches of %d, as it was begun, not of %d; remove the folder "
                    "to begin anew",
                    self.folder,
                    begun.batch_size,
                    self.batch_size,
                )
            return begun
        with writing(self._file) as partial:
            document = {"batch_size": self.batch_size, "sha256": self._check()}
            partial.write_text(json.dumps(document), encoding="utf-8")
        return self

    def begun(self) -> "ExtractionPlan | None":
        """Give the plan of the extraction that was interrupted, None if there is none."""
        try:
            document = json.loads(self._file.read_text(encoding="utf-8"))
            plan = replace(self, batch_size=int(document["batch_size"]))
            if document["sha256"] == plan._check():
                return plan
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            pass
        logger.info("%s: damaged; shards that are whole are kept", self._file)
        return None

    @property
    def folder(self) -> Path:
        """Where the shards are kept until all are there."""
        return self.out.with_name(f".{self.out.name}.{self.fingerprint[:12]}")

    def others(self) -> list[Path]:
        """List the folders of extractions into `out` that were interrupted and are not this one."""
        kind = re.compile(re.escape(f".{self.out.name}.") + "[0-9a-f]{12}")
        beside = self.out.parent.iterdir() if self.out.parent.is_dir() else ()
        return sorted(
            path
            for path in beside
            if kind.fullmatch(path.name) and path != self.folder and (path / _PLAN).exists()
        )

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

    def file(self, shard: int) -> Path:
        """Name the file of a shard."""
        return self.folder / f"shard-{shard:07d}.safetensors"

    def missing(self) -> list[int]:
        """List the shards that are not there yet; none is read."""
        there = {path.name for path in self.folder.glob("shard-*")} if self.folder.is_dir() else ()
        return [shard for shard in range(self.shards) if self.file(shard).name not in there]

    def mark(self, token: str) -> Path:
        """Name the file that tells other processes that they see the folder of this run."""
        return self.folder / f"run-{token}"

    def pending(self, *, remove: bool = False) -> list[int]:
        """List the shards that are not there, or not as they were written; all others are read.

        Args:
            remove: Remove the damaged ones; only for who holds the lock of the folder.
        """
        missing = self.missing()
        there = sorted(set(range(self.shards)) - set(missing))
        with ThreadPoolExecutor(_THREADS) as pool:
            whole = list(pool.map(self._is_whole, there))
        damaged = [shard for shard, good in zip(there, whole, strict=True) if not good]
        if damaged:
            logger.info(
                "%s: %d of %d shards are damaged; they are made anew",
                self.folder,
                len(damaged),
                self.shards,
            )
        if remove:
            for shard in damaged:
                self.file(shard).unlink(missing_ok=True)
        return sorted(missing + damaged)

    def read(self, shard: int, folder: Path | None = None) -> dict[str, Matrix] | None:
        """Read a shard: by layer ``(n, D)``; None if it is damaged, or of something else.

        Args:
            shard: Which one.
            folder: Where it is; in the plan's own folder by default.
        """
        count = len(self.rows(shard))
        shapes = {layer.name: (count, layer.dim) for layer in self.spec}
        file = self.file(shard) if folder is None else folder / self.file(shard).name
        return read_shard(file, shapes, identity=self.identity(shard))

    def identity(self, shard: int) -> str:
        """Say what a shard is of, so that none is taken for another: its images, and the method."""
        rows = self.rows(shard)
        images = sha256(self.hashed.each[rows.start : rows.stop].tobytes()).hexdigest()
        return f"{self.method}:{self.batch_size}:{images}"

    def take_over(self) -> int:
        """Take the shards that others, interrupted ones of other images, have of the same images.

        An image that could not be read is repaired or removed, and all others are what they were;
        only for who holds the lock of the folder.

        Returns:
            How many shards were taken over; they stay in their old place as well.
        """
        found = self.elsewhere(self.missing())
        for shard, file in found.items():
            _link(file, self.file(shard))
        return len(found)

    def elsewhere(self, missing: Sequence[int]) -> dict[int, Path]:
        """Find shards of the same images in the folders of others; by shard, their files."""
        found: dict[int, Path] = {}
        for other in self.others():
            wanted = [shard for shard in missing if shard not in found]
            with ThreadPoolExecutor(_THREADS) as pool:
                same = pool.map(self._is_whole, wanted, repeat(other))
                found |= {
                    shard: other / self.file(shard).name
                    for shard, is_same in zip(wanted, same, strict=True)
                    if is_same
                }
        return found

    def batches(self, shard: int) -> Iterator[range]:
        """Cut a shard into its batches: the images of each, as positions among the distinct."""
        rows = self.rows(shard)
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]

    @property
    def _file(self) -> Path:
        return self.folder / _PLAN

    def _check(self) -> str:
        return sha256(f"{self.fingerprint}:{self.batch_size}".encode()).hexdigest()

    def _is_whole(self, shard: int, folder: Path | None = None) -> bool:
        return self.read(shard, folder) is not None


def _link(source: Path, target: Path) -> None:
    with writing(target, synced=False) as partial:
        try:
            partial.hardlink_to(source)
        except OSError:  # a file system without such links
            shutil.copyfile(source, partial)


def pending_images(plan: ExtractionPlan, *, advice: str = REPLACE) -> int:
    """Count the images that an extraction would still send through the backbones.

    Args:
        plan: The extraction, as it would be begun.
        advice: What to do where the folder holds other features.

    Returns:
        How many; 0 where the features are there.

    Raises:
        FeatureError: If the folder holds other features.
    """
    if finished_store(plan.out, plan.fingerprint, overwrite=False, advice=advice) is not None:
        return 0
    begun = plan.begun() or plan
    missing = begun.pending()
    elsewhere = begun.elsewhere(missing)
    return sum(len(begun.rows(shard)) for shard in missing if shard not in elsewhere)


def finished_store(
    out: Path, fingerprint: str, *, overwrite: bool, advice: str = REPLACE
) -> FeatureStore | None:
    """Look for the result of an extraction, and read all of it to see whether it is whole.

    Args:
        out: The feature folder.
        fingerprint: What identifies the features wanted.
        overwrite: Whether other features may be replaced.
        advice: What to do where they may not.

    Returns:
        The store if it is already there, None if there is work to do; that is so, too, where the
        features wanted are there but damaged.

    Raises:
        FeatureError: If the folder holds something else and may not be replaced.
    """
    is_own = FEATURES.is_of(out, fingerprint)
    if is_own and FEATURES.find(out, fingerprint) is not None:
        return FeatureStore.open(out)
    wanted: Recipe = {"fingerprint": fingerprint}
    FEATURES.check_replaceable(out, wanted, overwrite=overwrite or is_own, advice=advice)
    return None
