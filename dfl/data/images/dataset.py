"""The dataset: rows of a manifest as typed samples, reproducible under any number of workers."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from dfl.data.images.crops import Crop
from dfl.data.images.decode import OnDamaged, decode_noting, read_image
from dfl.data.images.preprocess import Draw, Preprocess
from dfl.data.images.transforms import Augmentation
from dfl.data.manifest.manifest import Manifest
from dfl.types import PADDING, Batch, Sample


class ImageDataset(Dataset[Sample]):
    """Images of a manifest: decoded, augmented at their own resolution, then cropped.

    Augmentations come before the crop, since blur and recompression meet an image in the world as
    it is, not at the size of a backbone. All randomness of a sample follows from the seed, the
    epoch and the image's path, so that neither workers, processes nor the order of rows change it,
    and the rows of one image in several pairs look the same.

    Args:
        manifest: The table of images.
        crop: What becomes of an image of any size.
        transforms: Augmentations, applied in this order.
        seed: The seed of augmentations and random crops.
        rows: The rows of the manifest that are in the dataset, in its order; all by default.
        on_damaged: What an image is whose decoder had to get over damage: read, or an error.
        draw: Which of several draws of the images this is, if it is one.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        crop: Crop,
        transforms: Sequence[Augmentation] = (),
        seed: int = 0,
        rows: Sequence[int] | None = None,
        on_damaged: OnDamaged = "warn",
        draw: Draw | None = None,
    ) -> None:
        self.manifest = manifest
        self.rows = range(len(manifest)) if rows is None else rows
        self.crop = crop
        self.transforms = tuple(transforms)
        self.seed = seed
        self.on_damaged = on_damaged
        self.draw = draw
        # In shared memory: workers that live longer than an epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    @property
    def epoch(self) -> int:
        """The epoch that random augmentations are drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from now on, in the workers too."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample.

        Args:
            index: A position in the dataset, or ``~position`` for a repetition of that sample which
                only fills a batch: its ``index`` is PADDING.

        Returns:
            The sample; its ``index`` is the row in the whole manifest.

        Raises:
            ImageError: If the image cannot be decoded.
        """
        padding = index < 0
        row = int(self.rows[~index if padding else index])
        frame = self.manifest.frame
        path = str(frame["path"].iloc[row])
        file = self.manifest.resolve(path)
        decoded = decode_noting(read_image(file), str(file), self.on_damaged)
        view = Preprocess(self.crop, self.transforms, self.seed, self.draw)
        group = str(frame["group"].iloc[row])
        return Sample(
            image=view.of(decoded.pixels, path, group=group, epoch=self.epoch),
            label=int(frame["label"].iloc[row]),
            path=path,
            dataset=str(frame["dataset"].iloc[row]),
            generator=str(frame["generator"].iloc[row]),
            index=PADDING if padding else row,
            damage=decoded.damage,
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples into one batch.

    Returns:
        ``image`` is (B, 3, H, W), or (B, V, 3, H, W) for several crops an image.
    """
    return Batch(
        image=torch.stack([sample["image"] for sample in samples]),
        label=torch.tensor([sample["label"] for sample in samples], dtype=torch.int64),
        path=[sample["path"] for sample in samples],
        dataset=[sample["dataset"] for sample in samples],
        generator=[sample["generator"] for sample in samples],
        index=torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
        damage=[sample["damage"] for sample in samples],
    )
