"""Hugging Face's datasets: saved, local, from the hub, or streamed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dfl.artifacts import Kind
from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.data.sources.fields import Fields, records_manifest
from dfl.data.sources.saved_datasets import is_saved, saved_splits, split_note, split_roles
from dfl.data.sources.streams import save_stream
from dfl.data.sources.table_records import table_records, told_fields
from dfl.errors import ConfigError, DataError, one_line
from dfl.folders import locked
from dfl.recipe import Plain, Recipe, describe, fingerprint_of

if TYPE_CHECKING:
    import datasets

STREAM: Final = Kind("stream", DataError, "stream.json", 1, files=("*.parquet",))


@dataclass
class HuggingFace(Source):
    """A Hugging Face dataset with a column of images.

    A folder that ``save_to_disk`` wrote is read as it is. Everything else goes through the
    ``datasets`` package, the extra ``hf``: it downloads once, and the images are read from its
    cache. Or it streams: rows are read once, and only what is asked for of them is kept, in Parquet
    files that are read from then on.

    Splits of the dataset are kept (``validation`` without ``test`` is the test set); ``train``
    alone, which is what data without splits are called, is split further.

    Args:
        path: A folder that ``save_to_disk`` wrote, a folder of data files, a name on the hub, or a
            format (``parquet``, ``imagefolder``, ``webdataset``) with ``data_files``.
        config: The configuration, where the dataset has several.
        splits: Which of its splits to use; all by default.
        revision: A branch, tag or commit on the hub.
        data_files: The files to read, for a format; they are all one split, ``train``.
        streaming: Whether to keep the images and the fields alone, instead of all that the dataset
            has and the library's copy of it.
        cache_dir: Where downloads are kept, in the library's own cache by default; and streams, in
            ``streams`` by default.
        image: The column of images; the only one that can hold any by default.
        fields: Which columns say what an image is; ``label`` with 0 or real, 1 or fake by default.
        name: The dataset's name, which is also the generator of fakes where none is given; the last
            part of the path by default.
    """

    path: str
    config: str | None = None
    splits: list[str] | None = None
    revision: str | None = None
    data_files: list[str] | None = None
    streaming: bool = False
    cache_dir: str | None = None
    image: str | None = None
    fields: Fields = field(default_factory=Fields)
    name: str | None = None

    @property
    def title(self) -> str:
        """The dataset's name."""
        return self.name or Path(self.path).name or "images"

    def prepare(self) -> None:
        """Read a stream, where that has not been done.

        Raises:
            ConfigError: If the ``datasets`` package is missing.
            DataError: If the dataset cannot be loaded, or a column is missing.
        """
        folder = self._stream
        if folder is None or folder.is_dir():
            return
        fields = self.fields.names()
        with locked(folder):
            if folder.is_dir():
                return  # another process was faster
            chosen = self._chosen_splits()
            with STREAM.making(folder, self._stream_recipe(), workspace=folder.parent) as new:
                for split in chosen:
                    stream = self._load(split, streaming=True).decode(False)
                    save_stream(
                        stream, split, new, image=self.image, fields=fields, source=self.path
                    )

    def scan(self) -> Manifest:
        """List the images, split by split, in the order of their rows."""
        root, by_split = self._files()
        roles = split_roles(list(by_split), self.path)
        fields = self.fields
        if self._stream is None:  # which has the columns that were asked for
            files = [root / file for each in by_split.values() for file in each]
            fields = told_fields(files, fields, split=not any(roles.values()))
        asked = fields.names()
        records = (
            table_records(root / file, file, image=self.image, fields=asked, split=roles[split])
            for split, files in by_split.items()
            for file in files
        )
        found = records_manifest(records, fields, dataset=self.title, root=root)
        if fields.split:
            return found
        return replace(found, notes=(*found.notes, *split_note(roles, self.title)))

    def recipe(self) -> Plain:
        """Describe the dataset, wherever it is kept."""
        return describe(replace(self, cache_dir=None))

    @property
    def _stream(self) -> Path | None:
        """The folder that a stream is written to."""
        if not self.streaming or is_saved(Path(self.path)):
            return None
        readable = re.sub(r"[^\w.+-]+", "_", Path(self.path).name)[:60]
        fingerprint = fingerprint_of(self._stream_recipe())[:12]
        return Path(self.cache_dir or "streams") / f"{readable}-{fingerprint}"

    def _stream_recipe(self) -> Recipe:
        asked = ("path", "config", "splits", "revision", "data_files", "image")
        settings = {name: getattr(self, name) for name in asked}
        return {"format": STREAM.format, **settings, "fields": describe(self.fields.names())}

    def _files(self) -> tuple[Path, dict[str, list[str]]]:
        """Return the folder of the tables, and the files under it of each split that is used."""
        root = Path(self.path)
        if is_saved(root):
            saved = saved_splits(root)
            return root, {split: saved[split] for split in self._chosen(list(saved))}
        if (stream := self._stream) is not None:
            if not stream.is_dir():
                raise DataError(f"{stream}: the stream was not read yet; call prepare_data() first")
            written: dict[str, list[str]] = {}
            for file in sorted(path.name for path in stream.glob("*.parquet")):
                written.setdefault(file.rpartition("-")[0], []).append(file)
            return stream, written
        there = {
            split: [Path(file["filename"]) for file in self._load(split).cache_files]
            for split in self._chosen_splits()
        }
        folders = [file.parent for files in there.values() for file in files]
        if not folders:
            raise DataError(f"{self.path}: its splits {', '.join(there)} have no row; name others")
        # relative to the folder of this version, whose own name depends on the machine
        root = folders[0]
        return root, {
            split: [file.relative_to(root).as_posix() for file in files]
            for split, files in there.items()
        }

    def _load(self, split: str, *, streaming: bool = False) -> Any:  # noqa: ANN401 - of a package
        """Load a split: download it once, or open it as a stream."""
        kept = {} if streaming else {"cache_dir": self.cache_dir}
        with self._library() as library:
            return library.load_dataset(
                self.path,
                self.config,
                data_files=self.data_files,
                split=split,
                revision=self.revision,
                streaming=streaming,
                **kept,
            )

    def _chosen_splits(self) -> list[str]:
        with self._library() as library:
            names = library.get_dataset_split_names(
                self.path, self.config, data_files=self.data_files, revision=self.revision
            )
        return self._chosen([str(name) for name in names])

    def _chosen(self, there: list[str]) -> list[str]:
        wanted = self.splits or there
        gone = [name for name in wanted if name not in there]
        if gone:
            has = ", ".join(there) or "one without a name; leave splits out"
            raise DataError(f"{self.path}: has no split {gone[0]!r}; it has {has}")
        return list(dict.fromkeys(wanted))

    @contextmanager
    def _library(self) -> Iterator["datasets"]:
        try:
            import datasets
        except ImportError as err:
            raise ConfigError(
                f'{self.path}: needs Hugging Face\'s datasets; pip install "dfl[hf]" (a folder '
                "written by save_to_disk, or Parquet files, are read without it)"
            ) from err
        try:
            yield datasets
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as err:
            raise DataError(
                f"{self.path}: cannot be loaded ({one_line(err)}); give the name of a dataset on "
                "the hub, a folder, or a format and data_files"
            ) from err
