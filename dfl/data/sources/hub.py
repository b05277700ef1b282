"""Hugging Face's library: datasets of the hub, or of local files that it reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dfl.data.sources.table_records import check_field, image_column
from dfl.errors import ConfigError, DataError, one_line

if TYPE_CHECKING:
    import datasets

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


def download(source: HubSplit, cache_dir: str | None) -> list[Path]:
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


def save_stream(
    source: HubSplit,
    folder: Path,
    *,
    image: str | None,
    fields: Sequence[str],
    group_bytes: int = 32 << 20,
    file_groups: int = 32,
) -> None:
    """Read a split row by row, and write it to Parquet files in the same order.

    Args:
        source: The split; its name begins the names of the files.
        folder: Where the files go.
        image: The column of images, which are written as they are stored; the only one by default.
        fields: The columns to write beside it, ``column.part`` for a part of one.
        group_bytes: About how many bytes of images are in a row group.
        file_groups: How many row groups are in a file.

    Raises:
        ConfigError: If the ``datasets`` package is missing.
        DataError: If the dataset cannot be loaded, a column is missing, or the stream breaks off.
    """
    with _loading(source) as library:
        stream = library.load_dataset(
            source.path,
            source.config,
            data_files=source.data_files,
            split=source.split,
            revision=source.revision,
            streaming=True,
        ).decode(False)
    if stream.features is None:
        raise DataError(f"{source.path}: does not say which columns it has; set streaming to false")
    schema = stream.features.arrow_schema
    column = image_column(schema, image, source.path)
    tops = [check_field(source.path, schema, name) for name in fields]
    stream = stream.select_columns(list(dict.fromkeys([column, *tops])))

    def open_file(number: int) -> pq.ParquetWriter:
        file = folder / f"{source.split}-{number:05}.parquet"
        # images are compressed as they are, and no two are the same
        return pq.ParquetWriter(
            file,
            stream.features.arrow_schema,
            compression="none",
            use_dictionary=False,
            write_page_checksum=True,
        )

    writer = open_file(0)
    try:
        for number, rows in enumerate(_row_groups(stream, column, group_bytes, source.path)):
            if number and number % file_groups == 0:
                writer.close()
                writer = open_file(number // file_groups)
            writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))
    finally:
        writer.close()


def _row_groups(
    stream: "datasets.IterableDataset", column: str, group_bytes: int, source: str
) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    try:
        for batch in stream.iter(batch_size=BATCH_ROWS):
            for cells in zip(*batch.values(), strict=True):
                row = dict(zip(batch, cells, strict=True))
                cell = row[column] = _with_bytes(row[column])
                size += len((cell["bytes"] if isinstance(cell, dict) else cell) or b"")
                rows.append(row)
            if size >= group_bytes:
                yield rows
                rows, size = [], 0
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as err:
        raise DataError(f"{source}: its stream broke off ({one_line(err)}); try again") from err
    if rows:
        yield rows


def _with_bytes(cell: Any) -> Any:  # noqa: ANN401 - bytes, a mapping or None
    """Read an image of which a stream gives an address only."""
    if isinstance(cell, dict) and cell["bytes"] is None and cell["path"]:
        import fsspec

        with fsspec.open(cell["path"], "rb") as file:
            return {**cell, "bytes": file.read()}
    return cell


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
        raise DataError(
            f"{source.path}: cannot be loaded ({one_line(err)}); give the name of a dataset on the "
            "hub, a folder, or a format and data_files"
        ) from err
