"""The records of Parquet and Arrow tables: all but their images is read, column by column."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfl.data.containers.base import SEPARATOR
from dfl.data.containers.tables import is_image_type, open_table, reading
from dfl.data.sources.fields import Fields, Records, text_of
from dfl.data.sources.words import called, may_be_split
from dfl.errors import DataError


def table_records(
    file: Path, name: str, *, image: str | None, fields: Sequence[str], split: str = ""
) -> Records:
    """List the images of a table.

    Args:
        file: A ``.parquet`` or ``.arrow`` file.
        name: What a manifest calls it.
        image: The column of images; the only one that can hold any by default.
        fields: The columns to read beside it, ``column.part`` for a part of one.
        split: The split that all of them are for.

    Raises:
        FileNotFoundError: If there is no such file.
        DataError: If it is damaged, or a column is missing.
    """
    schema, rows = _shape(file)
    column = image_column(schema, image, file)
    values = _values(file, schema, fields)
    return Records(name, [f"{name}{SEPARATOR}{column}/{i}" for i in range(rows)], values, split)


def table_images(file: Path, name: str) -> list[tuple[str, str]]:
    """List the images of a table whatever else is known of them.

    Args:
        file: A ``.parquet`` or ``.arrow`` file.
        name: What a manifest calls it.

    Returns:
        The path of each in a manifest, and the file name that is kept beside its bytes, if any is.

    Raises:
        DataError: If the table is damaged, or has not one column of images.
    """
    schema, _ = _shape(file)
    column = image_column(schema, None, file)
    kind = schema.field(column).type
    has_names = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    field = f"{column}.path"
    records = table_records(file, name, image=column, fields=[field] if has_names else [])
    names = records.values.get(field) or [None] * len(records.paths)
    return [(path, str(inner or "")) for path, inner in zip(records.paths, names, strict=True)]


def told_fields(files: Sequence[Path], fields: Fields, *, split: bool = True) -> Fields:
    """Fill in, from the names of the columns, what fields leave out: generator, group and split.

    A column counts by its name (``generator``, ``model_name``, ``group``, ``split``, ``subset``)
    where no other one could be meant; that of the split only where all its values are splits.

    Args:
        files: ``.parquet`` or ``.arrow`` files of the same columns.
        fields: What is said.
        split: Whether nothing else says the split.

    Raises:
        DataError: If a file is damaged.
    """
    schema, _ = _shape(files[0])
    plain = [name for name in schema.names if not pa.types.is_nested(schema.field(name).type)]

    def found(part: str) -> str | None:
        names = called(plain, part)
        if part == "split":
            names = [name for name in names if split and _are_splits(files, name)]
        return names[0] if len(names) == 1 and names[0] != fields.label else None

    return replace(
        fields,
        generator=fields.generator or found("generator"),
        group=fields.group or found("group"),
        split=fields.split or found("split"),
    )


def _are_splits(files: Sequence[Path], name: str) -> bool:
    values = (_values(file, _shape(file)[0], [name])[name] for file in files)
    return all(may_be_split(text_of(value)) for each in values for value in set(each))


def image_column(schema: pa.Schema, asked: str | None, source: str | Path) -> str:
    """Find the column of images.

    Args:
        schema: The schema of the table.
        asked: Its name, None to find it.
        source: What the error names.

    Raises:
        DataError: If there is none, there are several to choose from, or it cannot hold images.
    """
    fit = [name for name in schema.names if is_image_type(schema.field(name).type)]
    found = ", ".join(fit) or "none"
    if asked is not None:
        if asked not in schema.names:
            raise DataError(_no_column(source, asked, schema))
        if asked not in fit:
            raise DataError(
                f"{source}: column {asked!r} is {schema.field(asked).type} and holds no images; "
                f"columns that can: {found}"
            )
        return asked
    if len(fit) != 1:
        hint = "name it with image" if fit else f"it has {', '.join(schema.names)}"
        raise DataError(f"{source}: must have one column of images, has {found}; {hint}")
    return str(fit[0])


def check_field(source: str | Path, schema: pa.Schema, name: str) -> str:
    """Check that a table has a field, and return the column that it is in.

    Args:
        source: What the error names.
        schema: The schema of the table.
        name: A column, or ``column.part`` for a part of one.

    Raises:
        DataError: If there is none.
    """
    if name in schema.names:
        return name
    top, *parts = name.split(".")
    if top not in schema.names:
        raise DataError(_no_column(source, name, schema))
    kind = schema.field(top).type
    for part in parts:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            raise DataError(f"{source}: column {top!r} is {kind} and has no {part!r}; name another")
        kind = kind.field(part).type
    return top


def _shape(file: Path) -> tuple[pa.Schema, int]:
    with reading(file):
        if file.suffix == ".parquet":
            parquet = pq.ParquetFile(file)
            return parquet.schema_arrow, parquet.metadata.num_rows
        table = open_table(file)
        return table.schema, table.num_rows


def _values(file: Path, schema: pa.Schema, fields: Sequence[str]) -> dict[str, list[object]]:
    if not fields:
        return {}
    for name in fields:
        check_field(file, schema, name)
    with reading(file):
        if file.suffix == ".parquet":
            table = pq.ParquetFile(file).read(columns=list(fields), use_threads=False)
        else:
            table = open_table(file)
        columns = {
            name: table.column(name)
            if name in table.column_names
            else pc.struct_field(table.column(name.split(".")[0]), name.split(".")[1:])
            for name in fields
        }
    return {name: _named(values, schema, name) for name, values in columns.items()}


def class_names(schema: pa.Schema, column: str) -> dict[int, str]:
    """Return the names that Hugging Face keeps for the numbers of a ``ClassLabel``; else none."""
    try:
        kept = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = kept["info"]["features"][column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else []
    except (ValueError, KeyError, TypeError):
        names = []
    return {number: str(name) for number, name in enumerate(names)}


def _named(values: pa.ChunkedArray, schema: pa.Schema, name: str) -> list[object]:
    """Give the numbers of a Hugging Face ``ClassLabel`` their names."""
    plain: list[object] = values.to_pylist()
    known = class_names(schema, name)
    if not known:
        return plain
    return [known.get(value) if isinstance(value, int) else value for value in plain]


def _no_column(source: str | Path, name: str, schema: pa.Schema) -> str:
    return f"{source}: no column {name!r}; it has {', '.join(schema.names)}"
