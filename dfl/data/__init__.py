"""Manifests, the sources that build them, decoding, augmentation, datasets and data modules.

Names that need Lightning or torchvision are imported when they are first asked for: the manifest
and what builds it load without them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from dfl.data.counts import count_images
from dfl.data.fields import Fields
from dfl.data.manifest import COLUMNS, Manifest
from dfl.data.pairs import Pair, pair_manifest
from dfl.data.sources import Source, scan_folder, scan_side, scan_tree
from dfl.data.split import assign_splits

if TYPE_CHECKING:
    from dfl.data.base_datamodule import ImageDataModule
    from dfl.data.crops import CenterCrop, Crop, MultiCrop, RandomCrop, Resize, Squash
    from dfl.data.datamodules import ManifestDataModule, PairDataModule, TreeDataModule
    from dfl.data.dataset import ImageDataset, collate
    from dfl.data.folder_datamodule import FolderDataModule
    from dfl.data.huggingface_datamodule import HuggingFaceDataModule
    from dfl.data.packed_datamodules import ParquetDataModule, WebDatasetDataModule
    from dfl.data.samplers import EvalSampler, TrainSampler
    from dfl.data.split_datamodule import SplitDataModule
    from dfl.data.table_datamodule import TableDataModule
    from dfl.data.transforms import JPEG, Augmentation, ColorJitter, GaussianBlur, HorizontalFlip

__all__ = [
    "COLUMNS",
    "JPEG",
    "Augmentation",
    "CenterCrop",
    "ColorJitter",
    "Crop",
    "EvalSampler",
    "Fields",
    "FolderDataModule",
    "GaussianBlur",
    "HorizontalFlip",
    "HuggingFaceDataModule",
    "ImageDataModule",
    "ImageDataset",
    "Manifest",
    "ManifestDataModule",
    "MultiCrop",
    "Pair",
    "PairDataModule",
    "ParquetDataModule",
    "RandomCrop",
    "Resize",
    "Source",
    "SplitDataModule",
    "Squash",
    "TableDataModule",
    "TrainSampler",
    "TreeDataModule",
    "WebDatasetDataModule",
    "assign_splits",
    "collate",
    "count_images",
    "pair_manifest",
    "scan_folder",
    "scan_side",
    "scan_tree",
]

_HOMES = {
    "base_datamodule": ("ImageDataModule",),
    "crops": ("CenterCrop", "Crop", "MultiCrop", "RandomCrop", "Resize", "Squash"),
    "datamodules": ("ManifestDataModule", "PairDataModule", "TreeDataModule"),
    "dataset": ("ImageDataset", "collate"),
    "folder_datamodule": ("FolderDataModule",),
    "huggingface_datamodule": ("HuggingFaceDataModule",),
    "packed_datamodules": ("ParquetDataModule", "WebDatasetDataModule"),
    "samplers": ("EvalSampler", "TrainSampler"),
    "split_datamodule": ("SplitDataModule",),
    "table_datamodule": ("TableDataModule",),
    "transforms": ("JPEG", "Augmentation", "ColorJitter", "GaussianBlur", "HorizontalFlip"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
