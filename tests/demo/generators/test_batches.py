import pytest
import torch

from dfl.demo.generators import batches
from dfl.demo.generators.batches import RandomCrops
from dfl.demo.photographs import load_photograph

pytest.importorskip("skimage", reason="needs the extra [demo]")


def test_random_crops__open_no_photograph_but_the_train_ones(monkeypatch):
    opened = []

    def load(photograph):
        opened.append(photograph)
        return load_photograph(photograph)

    monkeypatch.setattr(batches, "load_photograph", load)
    RandomCrops(1, generator=torch.Generator())

    assert {p.split for p in opened} == {"train"}


def test_random_crops__shape_range_and_seed():
    first, again = (
        RandomCrops(3, generator=torch.Generator().manual_seed(0), crop_size=32).draw()
        for _ in range(2)
    )

    assert first.shape == (3, 3, 32, 32)
    assert first.dtype == torch.float32
    assert first.abs().max() <= 1.0
    assert torch.equal(first, again)
