"""The data modules of images in containers of files: Parquet tables and WebDataset shards."""

from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from dfl.data.images.crops import Crop
from dfl.data.images.transforms import Augmentation
from dfl.data.manifest.manifest import Manifest
from dfl.data.modules.split_datamodule import SplitDataModule
from dfl.data.sources.columns import Fields, Records, records_manifest
from dfl.data.sources.packed import find_files
from dfl.data.sources.table_records import table_records
from dfl.data.sources.tar_records import tar_records

__all__ = ["ParquetDataModule", "WebDatasetDataModule"]


class _PackedDataModule(SplitDataModule):
    """What containers of files have in common: which they are, and what is read of them."""

    root: Path
    files: list[str]
    image: str | None
    fields: Fields
    name: str | None

    @abstractmethod
    def _records(self, file: str) -> Records:
        """List the images of a container, named relative to the root."""

    def _scan(self) -> Manifest:
        return records_manifest(
            map(self._records, find_files(self.root, self.files)),
            self.fields,
            dataset=self._name(),
            root=self.root,
            named=self.name is not None,
        )

    def _recipe(self) -> object:
        return [self.root.as_posix(), self.files, self.image, asdict(self.fields), self.name]

    def _name(self) -> str:
        return self.name or self.root.resolve().name or "images"


class ParquetDataModule(_PackedDataModule):
    """Images in the rows of Parquet files, as bytes or as Hugging Face writes them.

    They are read fast from front to back. In random order each image costs its whole row group,
    unless the groups of all files fit in what is held (four files, two groups of up to 64 MiB
    each): of larger sets ``extract`` the features, and train on those.

    Args:
        root: The folder under which the files are; relative to the working directory.
        files: The files, or patterns of them (``train-*.parquet``); all below the root by default.
        image: The column of images; the only one that can hold any by default.
        fields: Which columns say what an image is; ``label`` with 0 or real, 1 or fake by default.
        name: The dataset's name, which is also the generator of fakes where none is given; the
            root's by default.
        crop: How an image becomes a square.
        train_crop: The same for training; ``crop`` by default.
        train_transforms: Augmentations of training, in their order.
        eval_transforms: Augmentations of everything else, in their order.
        batch_size: Images in a batch of one process.
        num_workers: Processes that decode; 0 decodes in the main one.
        on_unreadable: Whether an image that cannot be decoded is an error, or left out and listed.
        seed: The seed of splits, of the order of training, and of augmentations.
        test_fraction: The tested fraction of each dataset and class, in [0, 1].
        val_fraction: The validated fraction of what is not tested, in [0, 1).
        split_dir: The folder of split files; relative to the working directory.
    """

    def __init__(
        self,
        root: Path,
        files: list[str] | None = None,
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
        self.root = Path(root)
        self.files = list(files or ["**/*.parquet"])
        self.image = image
        self.fields = fields or Fields()
        self.name = name

    def _records(self, file: str) -> Records:
        return table_records(self.root / file, file, image=self.image, fields=self.fields.names())


class WebDatasetDataModule(_PackedDataModule):
    """Images in WebDataset shards: tars in which files of one key are one sample.

    The tars are not unpacked, and read in any order at the same speed; they must not be compressed.

    Args:
        root: The folder under which the shards are; relative to the working directory.
        files: The shards, or patterns of them (``train-*.tar``); all below the root by default.
        image: The ending of the images, such as ``jpg``; any that is known by default.
        fields: Which files of a sample say what its image is; ``cls`` with 0 or real, 1 or fake by
            default.
        name: The dataset's name, which is also the generator of fakes where none is given; the
            root's by default.
        crop: How an image becomes a square.
        train_crop: The same for training; ``crop`` by default.
        train_transforms: Augmentations of training, in their order.
        eval_transforms: Augmentations of everything else, in their order.
        batch_size: Images in a batch of one process.
        num_workers: Processes that decode; 0 decodes in the main one.
        on_unreadable: Whether an image that cannot be decoded is an error, or left out and listed.
        seed: The seed of splits, of the order of training, and of augmentations.
        test_fraction: The tested fraction of each dataset and class, in [0, 1].
        val_fraction: The validated fraction of what is not tested, in [0, 1).
        split_dir: The folder of split files; relative to the working directory.
    """

    def __init__(
        self,
        root: Path,
        files: list[str] | None = None,
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
        self.root = Path(root)
        self.files = list(files or ["**/*.tar"])
        self.image = image
        self.fields = fields or Fields(label="cls")
        self.name = name

    def _records(self, file: str) -> Records:
        return tar_records(self.root / file, file, image=self.image, fields=self.fields.names())
