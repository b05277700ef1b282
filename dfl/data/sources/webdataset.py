"""WebDataset shards: tars in which files of one key (a name up to its first dot) are a sample."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from dfl.data.containers.base import SEPARATOR
from dfl.data.containers.tar import members_of
from dfl.data.sources.fields import Fields, Records
from dfl.data.sources.packed import PackedFiles, is_hidden
from dfl.errors import DataError, one_line

IMAGE_ENDINGS: Final = frozenset(
    {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "jp2", "ppm", "pgm", "img"}
)
_Part = tuple[str, int, int]  # a member's name, where it begins, and how many bytes it has


@dataclass
class WebDataset(PackedFiles):
    """Images in WebDataset shards: tars in which files of one key are one sample.

    The tars are not unpacked, and read in any order at the same speed; they must not be compressed.

    Names of tars and folders that have a word of a split say the split where ``fields`` says none.

    Args:
        root: The folder under which the shards are; relative to the working directory.
        files: The shards, or patterns of them (``train-*.tar``); all below the root by default.
        image: The ending of the images, such as ``jpg``; any that is known by default.
        fields: Which files of a sample say what its image is; ``cls`` with 0 or real, 1 or fake by
            default.
        name: The dataset's name, which is also the generator of fakes where none is given; the
            root's by default.
    """

    root: Path
    files: list[str] = field(default_factory=lambda: ["**/*.tar"])
    image: str | None = None
    fields: Fields = field(default_factory=lambda: Fields(label="cls"))
    name: str | None = None

    def records(self, file: Path, name: str, fields: Fields) -> Records:
        """List the images of a shard, in the order of its keys."""
        return tar_records(file, name, image=self.image, fields=fields.names())


def tar_records(file: Path, name: str, *, image: str | None, fields: Sequence[str]) -> Records:
    """List the images of a shard.

    Args:
        file: A ``.tar`` file.
        name: What a manifest calls it.
        image: The ending of images; any that is known by default.
        fields: Endings whose content is read, ``json.key`` for a part of a JSON object, or
            ``__key__``.

    Raises:
        FileNotFoundError: If there is no such file.
        DataError: If it is damaged, a key has no image or several, or has no such field.
    """
    samples = _samples(file)
    paths: list[str] = []
    values: dict[str, list[object]] = {field: [] for field in fields}
    with file.open("rb") as stream:
        for key, parts in samples.items():
            paths.append(f"{name}{SEPARATOR}{_image(file, key, parts, image)}")
            read: dict[str, object] = {"__key__": key}
            for field in fields:
                values[field].append(_value(file, key, parts, field, stream, read))
    return Records(name, paths, values)


def _samples(file: Path) -> dict[str, dict[str, _Part]]:
    samples: dict[str, dict[str, _Part]] = {}
    for name, start, size in members_of(file):
        if is_hidden(name):
            continue
        folder, slash, base = name.rpartition("/")
        stem, _, ending = base.partition(".")
        parts = samples.setdefault(folder + slash + stem, {})
        if ending in parts:
            raise DataError(f"{file}: holds {name} twice; pack it again with each file once")
        parts[ending] = (name, start, size)
    return samples


def _image(file: Path, key: str, parts: dict[str, _Part], asked: str | None) -> str:
    if asked is not None:
        fit = [ending for ending in parts if ending == asked]
    else:
        fit = [ending for ending in parts if ending.lower() in IMAGE_ENDINGS]
    if len(fit) != 1:
        wanted = "images" if asked is None else f"{asked} files"
        raise DataError(
            f"{file}{SEPARATOR}{key}: has {len(fit)} {wanted} among its endings "
            f"({', '.join(parts)}); each key must have one; name its ending with image"
        )
    return parts[fit[0]][0]


def _value(
    file: Path,
    key: str,
    parts: dict[str, _Part],
    field: str,
    stream: IO[bytes],
    read: dict[str, object],
) -> object:
    """Return the value of a field; files that were read for another field are in ``read``."""
    if field in read:
        return read[field]
    ending = field if field in parts else field.partition(".")[0]
    if ending not in parts:
        raise DataError(
            f"{file}{SEPARATOR}{key}: no field {field!r}; it has __key__, {', '.join(parts)}"
        )
    if ending not in read:
        read[ending] = _content(file, parts[ending], stream)
    value = read[ending]
    for part in [] if ending == field else field.split(".")[1:]:
        if not isinstance(value, dict) or part not in value:
            found = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise DataError(
                f"{file}{SEPARATOR}{parts[ending][0]}: no {part!r} in it for {field!r}; it has "
                f"{found}"
            )
        value = value[part]
    return value


def _content(file: Path, part: _Part, stream: IO[bytes]) -> object:
    name, start, size = part
    stream.seek(start)
    try:
        text = stream.read(size).decode("utf-8").strip()
        return json.loads(text) if name.endswith("json") else text
    except ValueError as err:  # of UTF-8 or of JSON
        reason = one_line(err)
        raise DataError(f"{file}{SEPARATOR}{name}: cannot be read ({reason}); mend it") from err
