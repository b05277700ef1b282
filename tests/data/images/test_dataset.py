import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dfl.data import Tree
from dfl.data.images.crops import CenterCrop, MultiCrop, RandomCrop
from dfl.data.images.dataset import ImageDataset, collate
from dfl.data.images.transforms import ColorJitter, HorizontalFlip
from dfl.data.modules.samplers import TrainSampler
from dfl.errors import ImageError
from dfl.types import PADDING


def random_dataset(root: Path, seed: int = 0) -> ImageDataset:
    return ImageDataset(
        Tree(root).scan(),
        crop=RandomCrop(16),
        transforms=[ColorJitter(brightness=(0.2, 1.8)), HorizontalFlip()],
        seed=seed,
    )


def images_of(dataset: ImageDataset, num_workers: int, epochs: int = 1) -> list[dict[str, Tensor]]:
    sampler = TrainSampler(dataset)
    loader = DataLoader(
        dataset,
        batch_size=5,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        persistent_workers=num_workers > 0,
    )
    result = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        batches = list(loader)
        pairs = [
            pair for batch in batches for pair in zip(batch["path"], batch["image"], strict=True)
        ]
        result.append(dict(pairs))
    return result


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[path], two[path]) for path in one)


def message_of(loader: DataLoader) -> str:
    """Read all batches; keep of an error what it says alone, since the error holds its loader.

    The garbage collector would end the workers of that one later, in an order that waits for each.
    """
    try:
        for _ in loader:
            pass
    except ImageError as err:
        return str(err)
    return ""


def test_dataset__sample(image_root: Path) -> None:
    manifest = Tree(image_root).scan()
    dataset = ImageDataset(manifest, crop=CenterCrop(24), rows=[30, 3])
    sample = dataset[0]
    row = manifest.frame.iloc[30]
    assert len(dataset) == 2
    assert sample["image"].shape == (3, 24, 24)
    assert (sample["path"], sample["label"]) == (row["path"], row["label"])
    assert (sample["dataset"], sample["generator"]) == (row["dataset"], row["generator"])
    assert sample["index"] == 30


def test_dataset__padding_is_the_image_without_a_row(image_root: Path) -> None:
    dataset = random_dataset(image_root)
    padding, sample = dataset[~2], dataset[2]
    assert padding["index"] == PADDING
    assert padding["path"] == sample["path"]
    assert torch.equal(padding["image"], sample["image"])


def test_dataset__results_do_not_depend_on_workers_and_change_with_the_epoch(
    image_root: Path,
) -> None:
    alone = images_of(random_dataset(image_root), 0, epochs=3)
    shared = images_of(random_dataset(image_root), 2, epochs=3)
    assert all(map(same, alone, shared))
    assert not same(alone[0], alone[1])
    assert not same(alone[0], images_of(random_dataset(image_root, seed=1), 0)[0])


def test_dataset__leaves_the_generator_of_the_process_alone(image_root: Path) -> None:
    dataset = random_dataset(image_root)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    dataset[0]
    assert torch.equal(torch.rand(4), expected)


def test_collate__batch(image_root: Path) -> None:
    dataset = ImageDataset(Tree(image_root).scan(), crop=MultiCrop(16))
    batch = collate([dataset[0], dataset[~1]])
    assert batch["image"].shape == (2, 5, 3, 16, 16)
    assert batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert batch["index"].tolist() == [0, PADDING]
    assert len(batch["path"]) == len(batch["dataset"]) == len(batch["generator"]) == 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_dataset__unreadable_image_is_one_line_from_workers_too(
    image_copy: Path, num_workers: int
) -> None:
    broken = image_copy / "alpha/0_real/003.png"
    broken.write_bytes(broken.read_bytes()[:200])
    dataset = ImageDataset(Tree(image_copy).scan(), crop=CenterCrop(16))
    loader = DataLoader(dataset, batch_size=8, num_workers=num_workers, collate_fn=collate)
    message = message_of(loader)
    assert message.startswith(f"{broken}: cannot be decoded (")
    assert "\n" not in message


def test_dataset__loader_of_an_unreadable_image_is_freed_at_once(image_copy: Path) -> None:
    (image_copy / "alpha/0_real/003.png").write_bytes(b"")
    dataset = ImageDataset(Tree(image_copy).scan(), crop=CenterCrop(16))
    batches = iter(DataLoader(dataset, batch_size=8, num_workers=2, collate_fn=collate))
    loader_lives = weakref.ref(batches)
    gc.disable()  # so that nothing but the last reference frees it
    try:
        message = message_of(batches)
        del batches
        assert "is an empty file" in message
        assert loader_lives() is None
    finally:
        gc.enable()
