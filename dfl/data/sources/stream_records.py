"""The records of a stream: read once, while the images' hashes are taken."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from dfl.data.containers.base import SEPARATOR
from dfl.data.containers.content import remember
from dfl.data.containers.hub import HubSplit, fetch, open_stream, stream_rows
from dfl.data.containers.stream import write_stream
from dfl.data.sources.columns import Records
from dfl.errors import DataError

if TYPE_CHECKING:
    import datasets

__all__ = ["stream_records"]


def stream_records(
    file: Path, source: HubSplit, *, image: str | None, fields: Sequence[str], split: str
) -> Records:
    """List the images of a stream, and describe it in a file.

    The stream is read from its first to its last row; nothing of the images is held but their
    hashes.

    Args:
        file: The description to write, whose name ends in ``.hf.json``.
        source: What is streamed.
        image: The column of images; the only one by default.
        fields: The columns to read beside it, ``column.part`` for a part of one.
        split: The split that all rows are for.

    Raises:
        ConfigError: If the ``datasets`` package is missing.
        DataError: If the dataset cannot be loaded, or a column or an image is missing.
    """
    stream = open_stream(source)
    columns = _columns(stream, source.path)
    column = _image_column(stream, image, source.path)
    tops = [_column_of(field, columns, source.path) for field in fields]
    wanted = stream.select_columns(list(dict.fromkeys([column, *tops])))
    classes = {field: _classes(stream, field) for field in fields}
    values: dict[str, list[object]] = {field: [] for field in fields}
    rows: list[int] = []
    known: list[tuple[int, bytes]] = []
    for shard in range(stream.num_shards):
        before = len(known)
        for row in stream_rows(wanted, shard, source=source.path):
            content = fetch(row[column], file, f"{column}/{len(known)}")
            known.append((len(content), sha256(content).digest()))
            for field, top in zip(fields, tops, strict=True):
                value = _part(row[top], field, top, source.path)
                values[field].append(_named(value, classes[field]))
        rows.append(len(known) - before)
    write_stream(file, source, image=column, rows=rows)
    paths = [f"{file.name}{SEPARATOR}{column}/{row}" for row in range(len(known))]
    for path, (size, digest) in zip(paths, known, strict=True):
        remember(file.parent / path, size, digest)
    return Records(file.name, paths, values, split)


def _columns(stream: "datasets.IterableDataset", source: str) -> list[str]:
    if stream.features is None:  # known only once a row has been read
        first = next(iter(stream), None)
        if first is None:
            raise DataError(f"{source}: has no row; name another split")
        return list(first)
    return list(stream.features)


def _image_column(stream: "datasets.IterableDataset", asked: str | None, source: str) -> str:
    columns = _columns(stream, source)
    features = stream.features or {}
    fit = [name for name in columns if type(features.get(name)).__name__ == "Image"]
    if asked is not None:
        return _column_of(asked, [asked] if asked in columns else columns, source)
    if len(fit) != 1:
        raise DataError(
            f"{source}: must have one column of images, has {', '.join(fit) or 'none'}; name one "
            f"of {', '.join(columns)} with image"
        )
    return fit[0]


def _column_of(field: str, columns: list[str], source: str) -> str:
    top = field if field in columns else field.partition(".")[0]
    if top not in columns:
        raise DataError(f"{source}: no column {field!r}; it has {', '.join(columns)}")
    return top


def _classes(stream: "datasets.IterableDataset", field: str) -> dict[int, str]:
    feature = (stream.features or {}).get(field)
    names = getattr(feature, "names", None) or []
    return {number: str(name) for number, name in enumerate(names)}


def _named(value: object, classes: dict[int, str]) -> object:
    return classes.get(value, value) if isinstance(value, int) else value


def _part(value: object, field: str, top: str, source: str) -> object:
    for part in [] if field == top else field.split(".")[1:]:
        if not isinstance(value, dict) or part not in value:
            raise DataError(f"{source}: column {top!r} has no {part!r} for {field!r}; name another")
        value = value[part]
    return value
