"""Views of one decoding are those that a dataset of each view alone gives."""

from pathlib import Path

import pytest
import torch

import dfl.data.images.views
from dfl.data import JPEG, ColorJitter, GaussianBlur, HorizontalFlip, Manifest, RandomCrop
from dfl.data.images.dataset import ImageDataset
from dfl.data.images.preprocess import Draw, Preprocess
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


DEGRADED = (RandomCrop(24), (GaussianBlur((0.5, 2.0), p=0.5), JPEG((30, 90))), 0)


def test_draws__same_for_a_group_others_for_the_next(manifest: Manifest) -> None:
    """Where the first image stands under another name, class and set, in its own group or not."""
    frame = manifest.frame.assign(path=manifest.frame["path"].iloc[0], group="g")
    views = {
        f"{same_for}{number}": Preprocess(*DEGRADED, Draw(number, same_for))
        for number in (1, 2, 3)
        for same_for in ("group", "image")
    }
    dataset = ViewsDataset(manifest, views, [FixedBatch(range(2), tuple(views))])
    dataset._paths = frame["path"]
    dataset._groups = frame["group"]
    alike = dataset[0]["images"]
    assert all(torch.equal(pixels[0], pixels[1]) for pixels in alike.values())
    assert len({pixels[0].numpy().tobytes() for pixels in alike.values()}) == len(views)

    dataset._groups = manifest.frame["group"]
    apart = dataset[0]["images"]
    for name, pixels in apart.items():
        assert torch.equal(pixels[0], pixels[1]) == name.startswith("image")
        assert torch.equal(pixels, alike[name]) == name.startswith("image")


def test_draws__no_table_of_groups_but_that_given(manifest: Manifest) -> None:
    """The draw that a dataset of it alone gives, wherever the groups come from."""
    view = Preprocess(*DEGRADED, Draw(2))
    blank = Manifest(manifest.frame.assign(group=""), manifest.root)
    batches = [FixedBatch(range(6), ("draw",))]
    groups = manifest.frame["group"]
    (found,) = ViewsDataset(blank, {"draw": view}, batches, groups=groups)[0]["images"].values()
    alone = ImageDataset(
        manifest, crop=view.crop, transforms=view.transforms, seed=view.seed, draw=view.draw
    )
    assert torch.equal(found, torch.stack([alone[row]["image"] for row in range(6)]))
    alone.set_epoch(7)
    assert torch.equal(found[0], alone[0]["image"])  # its number stands for the epoch
    (other,) = ViewsDataset(blank, {"draw": view}, batches)[0]["images"].values()
    assert not torch.equal(found, other)
