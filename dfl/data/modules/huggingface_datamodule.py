"""The data module of Hugging Face's datasets: saved, local, from the hub, or streamed."""

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from torch.utils.data import DataLoader

from dfl.data.containers.hub import HubSplit, downloaded, pinned, split_names
from dfl.data.images.crops import Crop
from dfl.data.images.transforms import Augmentation
from dfl.data.manifest.manifest import Manifest
from dfl.data.modules.split_datamodule import SplitDataModule
from dfl.data.sources.columns import Fields, Records, records_manifest
from dfl.data.sources.saved_datasets import is_saved, saved_splits, split_roles
from dfl.data.sources.stream_records import stream_records
from dfl.data.sources.table_records import table_records
from dfl.errors import ConfigError, DataError
from dfl.types import Sample

__all__ = ["HuggingFaceDataModule"]


class HuggingFaceDataModule(SplitDataModule):
    """A Hugging Face dataset with a column of images.

    A folder that ``save_to_disk`` wrote is read as it is. Everything else goes through the
    ``datasets`` package, the extra ``hf``: it downloads once, and the images are read from its
    cache; or it streams, and nothing is kept but a small file beside the splits
    that describes the stream. A stream is read from front to back, so it cannot be trained on:
    extract its features, and train on these.

    Splits of the dataset are kept where several are used (``validation`` without ``test`` is the
    test set); one split alone is split further.

    Args:
        path: A folder that ``save_to_disk`` wrote, a folder of data files, a name on the hub, or a
            format (``parquet``, ``imagefolder``, ``webdataset``) with ``data_files``.
        config: The configuration, where the dataset has several.
        splits: Which of its splits to use; all by default.
        revision: A branch, tag or commit on the hub.
        data_files: The files to read, for a format; they are all one split, ``train``.
        streaming: Whether to read from the source each time instead of keeping a copy on disk.
        cache_dir: Where downloads are kept; the library's own cache by default.
        image: The column of images; the only one that can hold any by default.
        fields: Which columns say what an image is; ``label`` with 0 or real, 1 or fake by default.
        name: The dataset's name, which is also the generator of fakes where none is given; the last
            part of the path by default.
        crop: How an image becomes a square.
        train_crop: The same for training; ``crop`` by default.
        train_transforms: Augmentations of training, in their order.
        eval_transforms: Augmentations of everything else, in their order.
        batch_size: Images in a batch of one process.
        num_workers: Processes that decode; 0 decodes in the main one. Each of them reads a whole
            stream.
        on_unreadable: Whether an image that cannot be decoded is an error, or left out and listed.
        seed: The seed of splits, of the order of training, and of augmentations.
        test_fraction: The tested fraction of each dataset and class, in [0, 1].
        val_fraction: The validated fraction of what is not tested, in [0, 1).
        split_dir: The folder of split files; relative to the working directory.
    """

    def __init__(
        self,
        path: str,
        config: str | None = None,
        splits: list[str] | None = None,
        revision: str | None = None,
        data_files: list[str] | None = None,
        streaming: bool = False,
        cache_dir: str | None = None,
        image: str | None = None,
        fields: Fields | None = None,
        name: str | None = None,
        *,
        crop: Crop,
        train_crop: Crop | None = None,
        train_transforms: list[Augmentation] | None = None,
        eval_transforms: list[Augmentation] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        on_unreadable: Literal["error", "skip"] = "error",
        seed: int = 0,
        test_fraction: float = 0.2,
        val_fraction: float = 0.1,
        split_dir: str = "splits",
    ) -> None:
        super().__init__(
            crop=crop,
            train_crop=train_crop,
            train_transforms=train_transforms,
            eval_transforms=eval_transforms,
            batch_size=batch_size,
            num_workers=num_workers,
            on_unreadable=on_unreadable,
            seed=seed,
            test_fraction=test_fraction,
            val_fraction=val_fraction,
            split_dir=split_dir,
        )
        self.path = path
        self.config = config
        self.splits = splits
        self.revision = revision
        self.data_files = data_files
        self.streaming = streaming
        self.cache_dir = cache_dir
        self.image = image
        self.fields = fields or Fields()
        self.name = name

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of the training images, each once.

        Raises:
            ConfigError: If they are streamed.
        """
        if self.streaming:
            raise ConfigError(
                f"{self.path}: a stream is read in its order and cannot be shuffled for training; "
                "extract its features and train on them, or set streaming to false"
            )
        return super().train_dataloader()

    def _scan(self) -> Manifest:
        if self.streaming and not self._is_saved():
            return self._stream()
        root, files = self._files()
        asked = self.fields.names()
        records = (
            table_records(root / file, file, image=self.image, fields=asked, split=role)
            for file, role in files
        )
        return records_manifest(records, self.fields, dataset=self._name(), root=root)

    def _load(self) -> Manifest:
        if not self.streaming or self._is_saved():
            return super()._load()
        # Not compared with the stream, which would be read once more by every process.
        if not self.split_file.exists():
            raise DataError(f"{self.split_file}: no such split file; call prepare_data() first")
        return Manifest.read(self.split_file)

    def _is_saved(self) -> bool:
        return is_saved(Path(self.path))

    def _files(self) -> tuple[Path, list[tuple[str, str]]]:
        """Return the folder of the Arrow files, and each of these with the split it is for."""
        if self._is_saved():
            root = Path(self.path)
            by_split = saved_splits(root)
            roles = split_roles(self._chosen(list(by_split)), self.path)
            return root, [(file, roles[split]) for split in roles for file in by_split[split]]
        splits = self._splits()
        found = [
            (file, role)
            for split, role in splits.items()
            for file in downloaded(replace(self._source(), split=split), self.cache_dir)
        ]
        if not found:
            raise DataError(f"{self.path}: its splits {', '.join(splits)} have no row; name others")
        # Relative to the folder of this version, whose own name depends on the machine.
        root = found[0][0].parent
        return root, [(file.relative_to(root).as_posix(), role) for file, role in found]

    def _stream(self) -> Manifest:
        source = pinned(self._source())
        parts: list[Records] = []
        for split, role in self._splits().items():
            one = replace(source, split=split)
            digest = hashlib.sha256(json.dumps(vars(one)).encode()).hexdigest()[:12]
            readable = re.sub(r"[^\w.+-]+", "_", f"{self._name()}-{split}")[:60]
            file = Path(self.split_dir) / f"{readable}-{digest}.hf.json"
            asked = self.fields.names()
            parts.append(stream_records(file, one, image=self.image, fields=asked, split=role))
        return records_manifest(parts, self.fields, dataset=self._name(), root=Path(self.split_dir))

    def _splits(self) -> dict[str, str]:
        return split_roles(self._chosen(split_names(self._source())), self.path)

    def _chosen(self, there: list[str]) -> list[str]:
        wanted = self.splits or there
        gone = [name for name in wanted if name not in there]
        if gone:
            has = ", ".join(there) or "one without a name; leave splits out"
            raise DataError(f"{self.path}: has no split {gone[0]!r}; it has {has}")
        return list(dict.fromkeys(wanted))

    def _source(self) -> HubSplit:
        return HubSplit(self.path, self.config, revision=self.revision, data_files=self.data_files)

    def _recipe(self) -> object:
        return [
            vars(self._source()),
            self.splits,
            self.streaming,
            self.image,
            asdict(self.fields),
            self.name,
        ]

    def _name(self) -> str:
        return self.name or Path(self.path).name or "images"
