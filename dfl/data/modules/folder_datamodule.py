"""The data module of a folder of images without labels."""

from hashlib import sha256
from pathlib import Path
from typing import Literal

from dfl.data.images.crops import Crop
from dfl.data.images.transforms import Augmentation
from dfl.data.manifest.manifest import Manifest
from dfl.data.modules.base_datamodule import ImageDataModule
from dfl.data.sources.folders import scan_folder
from dfl.data.sources.unreadable import drop_unreadable, read_report, without

__all__ = ["FolderDataModule"]


class FolderDataModule(ImageDataModule):
    """A folder of images of which nothing is known, to be scored or exported.

    Args:
        root: The folder; relative to the working directory.
        recursive: Whether folders in it are looked into.
        crop: How an image becomes a square.
        eval_transforms: Augmentations, in their order.
        batch_size: Images in a batch of one process.
        num_workers: Processes that decode; 0 decodes in the main one.
        on_unreadable: Whether an image that cannot be decoded is an error, or left out and listed.
        unreadable_file: The list of those left out, relative to the working directory; by default
            ``unreadable-`` with the folder's name and a digest of where it is.
        seed: The seed of augmentations and random crops.
    """

    def __init__(
        self,
        root: Path,
        recursive: bool = True,
        *,
        crop: Crop,
        eval_transforms: list[Augmentation] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        on_unreadable: Literal["error", "skip"] = "error",
        unreadable_file: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            crop=crop,
            eval_transforms=eval_transforms,
            batch_size=batch_size,
            num_workers=num_workers,
            on_unreadable=on_unreadable,
            seed=seed,
        )
        self.root = Path(root)
        self.recursive = recursive
        self.unreadable_file = unreadable_file

    def prepare_data(self) -> None:
        """Look for unreadable images, if they are to be left out; one process does."""
        if self.on_unreadable == "skip":
            drop_unreadable(scan_folder(self.root, recursive=self.recursive), self._report)

    def _load(self) -> Manifest:
        found = scan_folder(self.root, recursive=self.recursive)
        return without(found, read_report(self._report)) if self.on_unreadable == "skip" else found

    @property
    def _report(self) -> Path:
        if self.unreadable_file is not None:
            return Path(self.unreadable_file)
        folder = self.root.resolve()  # two runs in one working directory must not share a list
        digest = sha256(f"{folder.as_posix()}:{self.recursive}".encode()).hexdigest()[:8]
        return Path(f"unreadable-{folder.name or 'images'}-{digest}.csv")

    def _advice(self, split: str) -> str:
        return f"{self.root} is a folder without labels, which can only be predicted"
