"""Several views of each image from one decoding, in batches that are fixed beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypedDict

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dfl.data.containers.content import named_hash
from dfl.data.images.decode import OnDamaged, decode_noting, read_image
from dfl.data.images.preprocess import Preprocess
from dfl.data.manifest.manifest import Manifest


@dataclass(frozen=True)
class FixedBatch:
    """What one batch is made of.

    Attributes:
        rows: The rows of the manifest.
        views: The names of the views that are wanted of them.
    """

    rows: range
    views: tuple[str, ...]


class ViewsBatch(TypedDict):
    """Views of the same images."""

    images: dict[str, Tensor]  # by view: uint8, (B, 3, H, W) or (B, V, 3, H, W)
    label: Tensor  # int64, (B,)
    index: Tensor  # int64, (B,): rows of the manifest
    named_hash: Tensor  # uint8, (B, 16): of the bytes that were decoded, with their paths
    path: list[str]
    damage: list[str]  # what decoders got over; empty for sound images


class ViewsDataset(Dataset[ViewsBatch]):
    """Batches of images, each decoded once for all of its views.

    A view of an image is what `ImageDataset` gives for it, whatever other views there are.

    Args:
        manifest: The table of images.
        views: By name, what becomes of a decoded image.
        batches: The batches, in their order; an item of the dataset is one of them.
        on_damaged: As in `ImageDataset`.
        groups: The group of each row, for views that are draws; that of the manifest by default.
    """

    def __init__(
        self,
        manifest: Manifest,
        views: Mapping[str, Preprocess],
        batches: Sequence[FixedBatch],
        on_damaged: OnDamaged = "warn",
        groups: "pd.Series[str] | None" = None,
    ) -> None:
        self._root = Manifest(manifest.frame[:0], manifest.root)
        # one look at the table a batch; as Python's texts, each worker would get a copy of all
        self._paths = manifest.frame["path"]
        self._groups = manifest.frame["group"] if groups is None else groups
        self._labels = torch.from_numpy(manifest.frame["label"].to_numpy(copy=True))
        self._views = dict(views)
        self._batches = batches
        self._on_damaged: OnDamaged = on_damaged

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> ViewsBatch:
        """Return a whole batch.

        Raises:
            ImageError: If an image cannot be decoded.
        """
        batch = self._batches[index]
        seen: dict[str, list[Tensor]] = {name: [] for name in batch.views}
        hashes: list[bytes] = []
        damage: list[str] = []
        paths, groups = (
            column.iloc[batch.rows.start : batch.rows.stop].tolist()
            for column in (self._paths, self._groups)
        )
        for path, group in zip(paths, groups, strict=True):
            file = self._root.resolve(path)
            data = read_image(file)
            hashes.append(named_hash(path, sha256(data).hexdigest()))
            decoded = decode_noting(data, str(file), self._on_damaged)
            damage.append(decoded.damage)
            for name, views in seen.items():
                views.append(self._views[name].of(decoded.pixels, path, group=group))
        return ViewsBatch(
            images={name: torch.stack(views) for name, views in seen.items()},
            label=self._labels[batch.rows.start : batch.rows.stop],
            index=torch.arange(batch.rows.start, batch.rows.stop),
            named_hash=torch.tensor([list(each) for each in hashes], dtype=torch.uint8),
            path=paths,
            damage=damage,
        )
