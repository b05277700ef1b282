"""What all tests share: offline, one thread, and small images in the field's layout."""

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

REPOSITORY = Path(__file__).parent.parent

os.environ["HF_HUB_OFFLINE"] = "1"  # before any hub client is imported
os.fsync = lambda descriptor: None  # what tests write need not outlive a power cut

settings.register_profile("suite", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile(
    "suite"
)  # the same examples everywhere; --hypothesis-profile=default seeks more


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    import torch  # slow, and the process that hands out the tests does not need it

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(pytest.mark.skip(reason="no GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage among what is imported here, a million objects, now or in any test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def quiet_and_offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    import torch

    torch.set_num_threads(1)
    yield
    # else the next test's logger goes on with this one's run, or with its service, which takes
    # relative paths from the folder that it was started in
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.finish()
        wandb.teardown()


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of 12 + 12 images: noise for real, flat colours with a grid for fake."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for pair in ("alpha", "beta"):
        for i in range(12):
            real = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            fake = np.full((48, 64, 3), rng.integers(0, 256, 3), dtype=np.uint8)
            fake[::8] = fake[:, ::8] = 255
            for side, pixels in (("0_real", real), ("1_fake", fake)):
                folder = root / pair / side
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return root


@pytest.fixture
def image_copy(image_root: Path, tmp_path: Path) -> Path:
    """A copy of the images that a test may damage."""
    return Path(shutil.copytree(image_root, tmp_path / "images"))
