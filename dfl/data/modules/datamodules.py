"""The data modules of labelled images that a config names: pairs, a manifest, a tree."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from dfl.data.images.crops import Crop
from dfl.data.images.transforms import Augmentation
from dfl.data.manifest.manifest import Manifest
from dfl.data.modules.split_datamodule import SplitDataModule
from dfl.data.sources.folders import scan_tree
from dfl.data.sources.pairs import Pair, scan_pairs
from dfl.files import sha256_of

__all__ = ["ManifestDataModule", "PairDataModule", "TreeDataModule"]


class PairDataModule(SplitDataModule):
    """Dataset pairs: real image sets against generated ones.

    Args:
        root: The folder under which sources are; relative to the working directory.
        pairs: Pairs by name; a source may serve several.
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
        pairs: dict[str, Pair],
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
        self.pairs = pairs

    def _scan(self) -> Manifest:
        return scan_pairs(self.pairs, self.root)

    def _recipe(self) -> object:
        # the root as it was given: two roots with sets of the same names have splits of their own
        return [self.root.as_posix(), {name: asdict(pair) for name, pair in self.pairs.items()}]

    def _name(self) -> str:
        return "+".join(self.pairs)


class ManifestDataModule(SplitDataModule):
    """The images of a manifest that somebody wrote.

    Its splits are kept; images without one are dealt one, and where a dataset has training but no
    validation images, its training part gives some up (none if ``val_fraction`` is 0).

    Args:
        path: A ``.csv`` or ``.parquet`` file; relative to the working directory.
        root: The folder of its relative paths; the file's own by default.
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
        path: Path,
        root: Path | None = None,
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
        self.path = Path(path)
        self.root = None if root is None else Path(root)

    def _scan(self) -> Manifest:
        return Manifest.read(self.path, self.root)

    def _recipe(self) -> object:
        # The content, not the name: a manifest that was edited gets a new split file. The root,
        # since other files may have the same paths there.
        content = sha256_of(self.path) if self.path.is_file() else None
        return [content, (self.root or self.path.parent).as_posix()]

    def _name(self) -> str:
        return self.path.stem


class TreeDataModule(SplitDataModule):
    """A folder tree in one of the field's layouts, recognised by itself.

    The parts of a layout (``train``, ``val``, ``test``) are kept; sets without them are split. To
    test on all images of such a tree, set ``test_fraction`` to 1.

    Args:
        root: A folder that holds sets, or a set; relative to the working directory.
        group: A regular expression with one capture group, searched in each file name; images of
            one set for which it captures the same text are one group.
        name: What the set is called, where the root is one set with folders for classes in it.
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
        group: str | None = None,
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
        self.group = group
        self.name = name

    def _scan(self) -> Manifest:
        return scan_tree(self.root, group=self.group, name=self.name)

    def _recipe(self) -> object:
        return [self.root.as_posix(), self.group, self.name]

    def _name(self) -> str:
        return self.root.resolve().name
