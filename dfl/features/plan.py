"""What an extraction has to do, cut into shards so that it can be shared, interrupted and resumed.

An image that serves several dataset pairs goes through the backbones once. A shard is a fixed range
of images in fixed batches, so its content does not depend on which process computes it or on how
many there are.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from dfl.data.content import content_hash, look_of
from dfl.data.manifest import Manifest
from dfl.errors import FeatureError
from dfl.features.shard import read_shard
from dfl.features.store import FeatureStore, Matrix, check_replaceable, fingerprint_at
from dfl.files import writing
from dfl.recipe import Plain, digest_of
from dfl.texts import repeated
from dfl.types import FeatureSpec

if TYPE_CHECKING:
    from _hashlib import HASH

__all__ = [
    "ExtractionPlan",
    "check_looks",
    "distinct_images",
    "extraction_fingerprint",
    "finished_store",
    "image_looks",
    "images_digest",
    "pending_images",
    "rows_digest",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SHARD_ROWS: Final = 128
REPLACE: Final = "name another folder with --out, or replace them with --overwrite=true"

_PLAN: Final = "plan.json"
_THREADS: Final = 8
_AT_ONCE: Final = 4096
"""Images, rows of the table or shards that are looked at together: a million of them never are."""


def distinct_images(manifest: Manifest) -> tuple[Manifest, npt.NDArray[np.int64]]:
    """Find the images of a manifest, each once.

    Args:
        manifest: Rows, some of which may name the same image in several dataset pairs.

    Returns:
        A manifest with the first row of each path, and for every row of `manifest` the position of
        its image in that, shape ``(N,)``.
    """
    again = repeated(manifest.frame, ["path"])
    if not again.any():
        return manifest, np.arange(len(manifest), dtype=np.int64)
    codes, _ = manifest.frame["path"].factorize()
    images = Manifest(manifest.frame[~again].reset_index(drop=True), manifest.root)
    return images, codes.astype(np.int64)


def images_digest(manifest: Manifest) -> str:
    """Hash a table and the content of its images, wherever they are.

    Args:
        manifest: The rows; their images are read.

    Returns:
        A hexadecimal SHA-256.
    """
    digest = _hashed_rows(manifest)
    for content in _of_each_image(manifest, content_hash, "hash images"):
        digest.update(content.encode())
    return digest.hexdigest()


def image_looks(manifest: Manifest) -> npt.NDArray[np.uint64]:
    """Note by what it shows whether an image has changed, without reading it.

    Args:
        manifest: The rows.

    Returns:
        A number for every distinct image, in the order of their first rows.
    """
    found = _of_each_image(manifest, look_of, "look at images")
    return np.fromiter(found, dtype=np.uint64)


def check_looks(manifest: Manifest, before: npt.NDArray[np.uint64]) -> None:
    """Refuse images that have changed since they were looked at.

    Args:
        manifest: The rows.
        before: What `image_looks` gave.

    Raises:
        FeatureError: If one has changed, which it names, or is gone.
    """
    paths = manifest.frame["path"][~repeated(manifest.frame, ["path"])]
    try:
        changed = np.flatnonzero(image_looks(manifest) != before)
    except FileNotFoundError as err:
        raise FeatureError(f"{err.filename}: was removed while its features were made") from err
    if changed.size:
        raise FeatureError(
            f"{manifest.resolve(paths.iloc[int(changed[0])])}: was changed while features of "
            f"{len(paths)} images were made ({changed.size} were); run the same command again"
        )


def _of_each_image(manifest: Manifest, look: Callable[[Path], T], what: str) -> Iterator[T]:
    """Apply something to every distinct image, some at once, in the order of their first rows."""
    paths = manifest.frame["path"][~repeated(manifest.frame, ["path"])]
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(desc=what, total=len(paths), leave=False, disable=None) as bar,
    ):
        for start in range(0, len(paths), _AT_ONCE):
            some = [manifest.resolve(path) for path in paths.iloc[start : start + _AT_ONCE]]
            for found in pool.map(look, some):
                yield found
                bar.update()


def rows_digest(manifest: Manifest) -> str:
    """Hash a table alone, none of whose images is read.

    Args:
        manifest: The rows.

    Returns:
        A hexadecimal SHA-256.
    """
    return _hashed_rows(manifest).hexdigest()


def _hashed_rows(manifest: Manifest) -> "HASH":
    digest = sha256()
    for start in range(0, max(1, len(manifest)), _AT_ONCE):
        rows = manifest.frame.iloc[start : start + _AT_ONCE]
        digest.update(rows.to_csv(index=False, header=start == 0).encode())
    return digest


def extraction_fingerprint(images: str, spec: FeatureSpec, *, view: Plain, run: Plain) -> str:
    """Identify the features that an extraction makes, by everything that decides them.

    Args:
        images: What `images_digest` says of the rows; the folder of the images does not count.
        spec: The parts, whose fingerprints stand for architecture, weights, preprocessing and
            layer.
        view: The description of the crop and the perturbations.
        run: How the backbones are run: their numeric precision and what carries it out.

    Returns:
        A hexadecimal SHA-256.
    """
    parts: list[Plain] = [dict(asdict(part)) for part in spec]
    facts: Plain = {"images": images, "parts": parts, "view": view, "run": run}
    return digest_of(facts)


@dataclass(frozen=True)
class ExtractionPlan:
    """The shards of one extraction.

    Attributes:
        out: The feature folder to make.
        fingerprint: What identifies the features.
        images: How many distinct images there are.
        batch_size: Images in a batch.
        spec: The parts.
    """

    out: Path
    fingerprint: str
    images: int
    batch_size: int
    spec: FeatureSpec

    def start(self) -> "ExtractionPlan":
        """Begin the extraction, or go on with one that was interrupted.

        Returns:
            The plan, its folder made; an interrupted extraction keeps the size of batches that it
            was begun with.
        """
        begun = self.begun()
        if begun is not None:
            return begun
        if self.folder.is_dir():
            logger.info("%s: damaged; the extraction begins anew", self._file)
            shutil.rmtree(self.folder)
        with writing(self._file) as partial:
            document = {"batch_size": self.batch_size, "sha256": self._check()}
            partial.write_text(json.dumps(document), encoding="utf-8")
        return self

    def begun(self) -> "ExtractionPlan | None":
        """Give the plan of the extraction that was interrupted, None if there is none."""
        try:
            document = json.loads(self._file.read_text(encoding="utf-8"))
            plan = replace(self, batch_size=int(document["batch_size"]))
            return plan if document["sha256"] == plan._check() else None
        except (OSError, ValueError, KeyError, TypeError):
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

    def read(self, shard: int) -> dict[str, Matrix] | None:
        """Read a shard: by part ``(n, D)``; None if it is damaged."""
        count = len(self.rows(shard))
        shapes = {part.name: (count, part.dim) for part in self.spec}
        return read_shard(self.file(shard), shapes, identity=self.identity(shard))

    def identity(self, shard: int) -> str:
        """Say what a shard is of, so that none is taken for another."""
        return f"{self.fingerprint}:{self.batch_size}:{shard}"

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

    def _is_whole(self, shard: int) -> bool:
        return self.read(shard) is not None


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
    begun = plan.begun()
    if begun is None:
        return plan.images
    return sum(len(begun.rows(shard)) for shard in begun.pending())


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
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        found = fingerprint_at(out)
    except FeatureError:
        if not overwrite or not (out / "features.json").exists():
            raise
        found = None
    if found == fingerprint:
        if store := _whole_store(out):
            return store
    elif not overwrite:
        raise FeatureError(
            f"{out} holds other features (other images, backbone, view or precision); {advice}"
        )
    check_replaceable(out, overwrite=True)
    return None


def _whole_store(out: Path) -> FeatureStore | None:
    try:
        store = FeatureStore.open(out)
        if damaged := store.damaged():
            raise FeatureError(f"{damaged[0]}: damaged")
    except FeatureError as err:
        logger.info("%s; the features are made anew", err)
        return None
    return store
