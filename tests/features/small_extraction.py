"""A backbone of known values that counts, and an extraction of twelve images with it."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dfl.backbones import Backbone
from dfl.commands.extract import extract
from dfl.data import ImageDataModule, ManifestFile, Resize
from dfl.data.manifest.manifest import Manifest
from dfl.features import FeatureStore
from dfl.features.hashing import HashedImages


class MeanColour(Backbone):
    """The mean of each colour, and its square; counts the images that it sees."""

    def __init__(self, power: int = 2, fail_after: int = 10**9) -> None:
        network = nn.Linear(1, 1)
        torch.nn.init.ones_(network.weight)
        torch.nn.init.zeros_(network.bias)
        super().__init__(
            network,
            ["mean", "square"],
            architecture=f"mean:{power}",
            input_size=8,
            mean=[0, 0, 0],
            std=[1, 1, 1],
        )
        self.power = power
        self.fail_after = fail_after
        self.batches: list[int] = []

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        if sum(self.batches) >= self.fail_after:
            raise KeyboardInterrupt
        self.batches.append(len(image))
        mean = image.mean((2, 3))
        return {"mean": mean, "square": mean**self.power}


def backbone(**arguments: int) -> MeanColour:
    made = MeanColour(**arguments)
    dims, made.fail_after = made.fail_after, 10**9
    _ = made.spec("m")  # looks at a black image, which does not count
    made.fail_after = dims
    made.batches.clear()
    return made


def images(root: Path, count: int = 12) -> Path:
    """One colour an image; the real half serves the pairs a and b, so it has two rows each."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        colour = (20 * i, 255 - 20 * i, i)
        Image.new("RGB", (9, 8), colour).save(root / f"{i:02d}.png")
        for pair in "ab" if i % 2 == 0 else "a":
            rows.append(
                {
                    "path": f"{i:02d}.png",
                    "label": i % 2,
                    "dataset": pair,
                    "generator": ("real", "gan")[i % 2],
                    "split": "train",
                    "group": str(i),
                }
            )
    # the rows of an image are not beside each other
    rows.sort(key=lambda row: row["dataset"])
    Manifest.from_rows(rows, root).write(root / "manifest.csv")
    return root / "manifest.csv"


def run(manifest: Path, out: Path, made: MeanColour, **arguments: object) -> FeatureStore:
    """Extract in batches of two."""
    data = ImageDataModule(ManifestFile(manifest), crop=Resize(8), batch_size=2)
    settings = {"accelerator": "cpu", "devices": 1}
    return extract(data, {"m": made}, out, **settings | arguments)


def expected(store: FeatureStore) -> np.ndarray:
    """What the features of each row must be, from its file's number."""
    number = store.manifest.frame["path"].str[:2].astype(int).to_numpy()[:, None]
    mean = np.concatenate([20 * number, 255 - 20 * number, number], axis=1) / 255
    return np.concatenate([mean, mean**2], axis=1)


def hashed(count: int, changed: Sequence[int] = ()) -> HashedImages:
    """Hashes of so many images that are not there, some of them of other content."""
    each = np.zeros((count, 16), dtype=np.uint8)
    each[:, :4] = np.arange(count, dtype="<u4")[:, None].view(np.uint8)
    each[list(changed), 15] = 1
    return HashedImages(sha256(each.tobytes()).hexdigest(), each)
