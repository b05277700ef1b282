"""Hugging Face's datasets: by name from the hub, or from local files that its library reads."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dfl.data.containers.base import SEPARATOR, ContainerError
from dfl.data.containers.table import bytes_of
from dfl.errors import ConfigError, DataError, one_line

if TYPE_CHECKING:
    import datasets

__all__ = [
    "HubSplit",
    "downloaded",
    "fetch",
    "open_stream",
    "pinned",
    "split_names",
    "stream_rows",
]

BATCH_ROWS: Final = 16  # their images are in memory at once


@dataclass(frozen=True)
class HubSplit:
    """One split of a dataset, as ``datasets.load_dataset`` names it.

    Attributes:
        path: A name on the hub, a folder, or a format such as ``parquet``.
        config: The configuration, where a dataset has several.
        split: The split.
        revision: A branch, tag or commit on the hub.
        data_files: The files to read, for a format.
    """

    path: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    data_files: list[str] | None = None


def split_names(source: HubSplit) -> list[str]:
    """List the splits of a dataset.

    Raises:
        ConfigError: If the ``datasets`` package is missing.
        DataError: If the dataset cannot be loaded.
    """
    with _loading(source) as library:
        names = library.get_dataset_split_names(
            source.path, source.config, data_files=source.data_files, revision=source.revision
        )
    return [str(name) for name in names]


def downloaded(source: HubSplit, cache_dir: str | None) -> list[Path]:
    """Bring a split to disk, once, and return its Arrow files in the order of its rows.

    Raises:
        ConfigError: If the ``datasets`` package is missing.
        DataError: If the dataset cannot be loaded.
    """
    with _loading(source) as library:
        loaded = library.load_dataset(
            source.path,
            source.config,
            data_files=source.data_files,
            split=source.split,
            revision=source.revision,
            cache_dir=cache_dir,
        )
    return [Path(file["filename"]) for file in loaded.cache_files]


def pinned(source: HubSplit) -> HubSplit:
    """Name the commit of a dataset on the hub, so that it stays the same."""
    with _loading(source) as library:
        builder = library.load_dataset_builder(
            source.path, source.config, data_files=source.data_files, revision=source.revision
        )
    commit = str(builder.hash or "")
    is_commit = re.fullmatch("[0-9a-f]{40}", commit) is not None
    return replace(source, revision=commit) if is_commit else source


def open_stream(source: HubSplit) -> "datasets.IterableDataset":
    """Open a split to be read row by row, its images as they are stored.

    Raises:
        ConfigError: If the ``datasets`` package is missing.
        DataError: If the dataset cannot be loaded.
    """
    with _loading(source) as library:
        stream = library.load_dataset(
            source.path,
            source.config,
            data_files=source.data_files,
            split=source.split,
            revision=source.revision,
            streaming=True,
        )
        return stream.decode(False)


def fetch(cell: object, path: Path, member: str) -> bytes:
    """Return the image in a cell of a stream, where it has only an address from there.

    Raises:
        ContainerError: If the cell is empty or holds something else, or nothing is there.
    """
    if isinstance(cell, dict) and cell.get("bytes") is None and "://" in str(cell.get("path")):
        import fsspec

        try:
            with fsspec.open(str(cell["path"]), "rb") as stream:
                return bytes(stream.read())
        except (OSError, ValueError) as err:
            reason = one_line(err, 200)
            raise ContainerError(
                f"{path}{SEPARATOR}{member}: {cell['path']} cannot be read ({reason}); try again"
            ) from err
    return bytes_of(cell, path, member)


def stream_rows(
    stream: "datasets.IterableDataset", shard: int, *, skipped: int = 0, source: str
) -> Iterator[Mapping[str, object]]:
    """Read the rows of a shard, all of them in whatever process.

    Args:
        stream: What ``open_stream`` gave, perhaps with fewer columns.
        shard: Which of its ``num_shards``.
        skipped: How many of its first rows to leave out.
        source: What an error names.

    Raises:
        DataError: If the stream breaks off.
    """
    import pyarrow as pa

    try:
        one = stream.shard(num_shards=stream.num_shards, index=shard)
        # Not one by one: within a loader's worker, that would give the worker's share only.
        for batch in (one.skip(skipped) if skipped else one).iter(batch_size=BATCH_ROWS):
            for cells in zip(*batch.values(), strict=True):
                yield dict(zip(batch, cells, strict=True))
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as err:
        reason = one_line(err, 300)
        raise DataError(f"{source}: its stream broke off ({reason}); try again") from err


@contextmanager
def _loading(source: HubSplit) -> Iterator["datasets"]:
    try:
        import datasets
    except ImportError as err:
        raise ConfigError(
            f'{source.path}: needs Hugging Face\'s datasets; pip install "dfl[hf]" (a folder '
            "written by save_to_disk, or Parquet files, are read without it)"
        ) from err
    try:
        yield datasets
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as err:
        reason = one_line(err, 300)
        raise DataError(
            f"{source.path}: cannot be loaded ({reason}); give the name of a dataset on the hub, a "
            "folder, or a format and data_files"
        ) from err
