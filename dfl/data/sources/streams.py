"""Streams of Hugging Face's library, kept in Parquet files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dfl.data.sources.table_records import check_field, image_column
from dfl.errors import DataError, one_line

if TYPE_CHECKING:
    import datasets

BATCH_ROWS: Final = 16  # their images are in memory at once


def save_stream(
    stream: "datasets.IterableDataset",
    name: str,
    folder: Path,
    *,
    image: str | None,
    fields: Sequence[str],
    source: str,
    group_bytes: int = 32 << 20,
    file_groups: int = 32,
) -> None:
    """Read a stream row by row, and write it to Parquet files in the same order.

    Args:
        stream: The stream, its images not decoded.
        name: What the files are called, ``<name>-00000.parquet`` being the first.
        folder: Where they go.
        image: The column of images, which are written as they are stored; the only one by default.
        fields: The columns to write beside it, ``column.part`` for a part of one.
        source: What an error names.
        group_bytes: About how many bytes of images are in a row group.
        file_groups: How many row groups are in a file.

    Raises:
        DataError: If a column is missing, or the stream breaks off.
    """
    if stream.features is None:
        raise DataError(f"{source}: does not say which columns it has; set streaming to false")
    schema = stream.features.arrow_schema
    column = image_column(schema, image, source)
    tops = [check_field(source, schema, name) for name in fields]
    stream = stream.select_columns(list(dict.fromkeys([column, *tops])))

    def open_file(number: int) -> pq.ParquetWriter:
        # images are compressed as they are, and no two are the same
        return pq.ParquetWriter(
            folder / f"{name}-{number:05}.parquet",
            stream.features.arrow_schema,
            compression="none",
            use_dictionary=False,
            write_page_checksum=True,
        )

    writer = open_file(0)
    try:
        for number, rows in enumerate(_row_groups(stream, column, group_bytes, source)):
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
