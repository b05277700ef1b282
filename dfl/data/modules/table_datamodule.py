"""The data module of images that another part of a program has chosen."""

from collections.abc import Sequence

from dfl.data.images.transforms import Augmentation
from dfl.data.manifest.manifest import Manifest
from dfl.data.modules.base_datamodule import ImageDataModule

__all__ = ["TableDataModule"]


class TableDataModule(ImageDataModule):
    """The images of a manifest, seen as another data module sees its own.

    The manifest is taken as it is: its splits are kept and its images are not looked for.

    Args:
        manifest: The table of images.
        like: Whose crops, batches and workers are taken over, and all that is not given here.
        train_transforms: Augmentations of training, in their order; none with an empty list.
        eval_transforms: Augmentations of everything else, in their order; none with an empty list.
        seed: The seed of the order of training, of augmentations and random crops.
    """

    def __init__(
        self,
        manifest: Manifest,
        like: ImageDataModule,
        *,
        train_transforms: Sequence[Augmentation] | None = None,
        eval_transforms: Sequence[Augmentation] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            crop=like.crop,
            train_crop=like.train_crop,
            train_transforms=list(
                like.train_transforms if train_transforms is None else train_transforms
            ),
            eval_transforms=list(
                like.eval_transforms if eval_transforms is None else eval_transforms
            ),
            batch_size=like.batch_size,
            num_workers=like.num_workers,
            on_unreadable=like.on_unreadable,
            seed=like.seed if seed is None else seed,
        )
        self._manifest = manifest

    def _load(self) -> Manifest:
        return self.manifest

    def _advice(self, split: str) -> str:
        return f"give a table in which some image is marked as {split}"
