"""Views of one decoding are those that a dataset of each view alone gives."""

from pathlib import Path

import pytest
import torch

import dfl.data.images.views
from dfl.data import JPEG, ColorJitter, GaussianBlur, HorizontalFlip, Manifest, RandomCrop
from dfl.data.images.dataset import ImageDataset
from dfl.data.images.preprocess import Preprocess
from dfl.data.images.views import FixedBatch, ViewsDataset
from dfl.features.hashing import hash_images

VIEWS = {
    "plain": Preprocess(RandomCrop(24), (), 0),
    "flipped": Preprocess(RandomCrop(24), (HorizontalFlip(), ColorJitter(brightness=0.5)), 0),
    "blurred": Preprocess(RandomCrop(24), (GaussianBlur((0.5, 2.0)), JPEG((60, 90))), 3),
}


@pytest.fixture
def manifest(image_root: Path) -> Manifest:
    rows = [
        {
            "path": f"alpha/{side}/{i:03d}.png",
            "label": label,
            "dataset": "alpha",
            "generator": side,
            "split": "",
            "group": f"{side}{i}",
        }
        for label, side in enumerate(("0_real", "1_fake"))
        for i in range(3)
    ]
    return Manifest.from_rows(rows, image_root)


def test_views__equal_those_alone_from_one_decoding(manifest: Manifest, monkeypatch) -> None:
    decoded: list[Path] = []
    read = dfl.data.images.views.read_image

    def counted(path: Path) -> bytes:
        decoded.append(path)
        return read(path)

    monkeypatch.setattr(dfl.data.images.views, "read_image", counted)
    batches = [
        FixedBatch(range(0, 4), tuple(VIEWS)),
        FixedBatch(range(4, 6), ("blurred", "plain")),
    ]
    state = torch.get_rng_state()
    dataset = ViewsDataset(manifest, VIEWS, batches)
    first, last = dataset[0], dataset[1]
    assert torch.equal(state, torch.get_rng_state())
    assert len(dataset) == 2
    assert decoded == manifest.paths()
    assert list(last["images"]) == ["blurred", "plain"]
    assert first["index"].tolist() + last["index"].tolist() == list(range(6))
    assert last["label"].tolist() == [1, 1]
    hashed = hash_images(manifest).each
    assert first["named_hash"].tolist() + last["named_hash"].tolist() == hashed.tolist()
    for name, view in VIEWS.items():
        alone = ImageDataset(manifest, crop=view.crop, transforms=view.transforms, seed=view.seed)
        for row in range(4):
            assert torch.equal(first["images"][name][row], alone[row]["image"])
        for row in range(2) if name in last["images"] else ():
            assert torch.equal(last["images"][name][row], alone[4 + row]["image"])
