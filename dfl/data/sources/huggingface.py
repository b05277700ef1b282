"""Hugging Face's datasets: saved, local, from the hub, or streamed."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.data.sources.fields import Fields, records_manifest
from dfl.data.sources.hub import HubSplit, download, save_stream, split_names
from dfl.data.sources.saved_datasets import is_saved, saved_splits, split_roles
from dfl.data.sources.table_records import table_records
from dfl.errors import DataError
from dfl.folders import locked, making_folder, recover_folder
from dfl.recipe import Plain, describe, fingerprint_of


@dataclass
class HuggingFace(Source):
    """A Hugging Face dataset with a column of images.

    A folder that ``save_to_disk`` wrote is read as it is. Everything else goes through the
    ``datasets`` package, the extra ``hf``: it downloads once, and the images are read from its
    cache. Or it streams: rows are read once, and only what is asked for of them is kept, in Parquet
    files that are read from then on.

    Splits of the dataset are kept where several are used (``validation`` without ``test`` is the
    test set); one split alone is split further.

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
        with locked(folder):
            recover_folder(folder)
            if folder.is_dir():
                return  # another process was faster
            chosen = self._chosen(split_names(self._of_library()))
            with making_folder(folder, workspace=folder.parent) as new:
                for split in chosen:
                    source = self._of_library(split)
                    save_stream(source, new, image=self.image, fields=self.fields.names())

    def scan(self) -> Manifest:
        """List the images, split by split, in the order of their rows."""
        root, by_split = self._files()
        roles = split_roles(list(by_split), self.path)
        asked = self.fields.names()
        records = (
            table_records(root / file, file, image=self.image, fields=asked, split=roles[split])
            for split, files in by_split.items()
            for file in files
        )
        return records_manifest(records, self.fields, dataset=self.title, root=root)

    def recipe(self) -> Plain:
        """Describe the dataset, wherever it is kept."""
        return describe(replace(self, cache_dir=None))

    @property
    def _stream(self) -> Path | None:
        """The folder that a stream is written to."""
        if not self.streaming or is_saved(Path(self.path)):
            return None
        settings = [vars(self._of_library()), self.splits, self.image, self.fields.names()]
        readable = re.sub(r"[^\w.+-]+", "_", Path(self.path).name)[:60]
        digest = fingerprint_of(describe(settings))[:12]
        return Path(self.cache_dir or "streams") / f"{readable}-{digest}"

    def _files(self) -> tuple[Path, dict[str, list[str]]]:
        """Return the folder of the tables, and the files under it of each split that is used."""
        root = Path(self.path)
        if is_saved(root):
            files = saved_splits(root)
            return root, {split: files[split] for split in self._chosen(list(files))}
        if (stream := self._stream) is not None:
            if not stream.is_dir():
                raise DataError(f"{stream}: the stream was not read yet; call prepare_data() first")
            written: dict[str, list[str]] = {}
            for file in sorted(path.name for path in stream.glob("*.parquet")):
                written.setdefault(file.rpartition("-")[0], []).append(file)
            return stream, written
        chosen = self._chosen(split_names(self._of_library()))
        there = {split: download(self._of_library(split), self.cache_dir) for split in chosen}
        folders = [file.parent for paths in there.values() for file in paths]
        if not folders:
            raise DataError(f"{self.path}: its splits {', '.join(chosen)} have no row; name others")
        # relative to the folder of this version, whose own name depends on the machine
        root = folders[0]
        return root, {
            split: [path.relative_to(root).as_posix() for path in paths]
            for split, paths in there.items()
        }

    def _chosen(self, there: list[str]) -> list[str]:
        wanted = self.splits or there
        gone = [name for name in wanted if name not in there]
        if gone:
            has = ", ".join(there) or "one without a name; leave splits out"
            raise DataError(f"{self.path}: has no split {gone[0]!r}; it has {has}")
        return list(dict.fromkeys(wanted))

    def _of_library(self, split: str = "train") -> HubSplit:
        return HubSplit(self.path, self.config, split, self.revision, self.data_files)
