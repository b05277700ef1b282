"""Features follow from the images alone: not from the containers that the images are in."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dfl.cli import main
from dfl.features.store import FeatureStore
from tests.data.packing import image_table, pack_parquet, pack_tar, png

IMAGES = [png(seed) for seed in range(20)]


def _root(root: Path) -> Path:
    labels = [i % 2 for i in range(20)]
    pack_parquet(root / "table.parquet", image_table(IMAGES, label=labels))
    files: dict[str, bytes] = {}
    for i, image in enumerate(IMAGES):
        files[f"{i:02}.png"] = image
        files[f"{i:02}.cls"] = b"%d" % labels[i]
        folder = root / "set" / ("0_real", "1_fake")[labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02}.png").write_bytes(image)
    pack_tar(root / "shard.tar", files)
    return root


def _extract(kind: str, root: Path, out: Path) -> FeatureStore:
    main(
        [
            "extract",
            "--data=dfl.data.ImageDataModule",
            f"--data.source=dfl.data.{kind}",
            f"--data.source.root={root}",
            "--data.crop=dfl.data.Squash",
            "--data.crop.size=32",
            "--data.batch_size=8",
            f"--data.splits.folder={out.parent / 'splits'}",
            '--backbones={"m": {"class_path": "tests.features.small_extraction.MeanColour"}}',
            "--precision=32-true",
            "--accelerator=cpu",
            "--devices=1",
            f"--out={out}",
        ]
    )
    return FeatureStore.open(out)


def test_extract__same_features_from_any_container(tmp_path: Path) -> None:
    root = _root(tmp_path / "here")
    stores = {
        kind: _extract(kind, root, tmp_path / "out" / kind)
        for kind in ("Parquet", "WebDataset", "Tree")
    }
    order = [stores["Tree"].manifest.frame["path"].str[-6:-4].astype(int).to_numpy().argsort()]
    folder = stores["Tree"].matrix()[order[0]]
    assert np.array_equal(stores["Parquet"].matrix(), folder)
    assert np.array_equal(stores["WebDataset"].matrix(), folder)


@pytest.mark.parametrize("kind", ["Parquet", "WebDataset"])
def test_extract__a_moved_container_is_the_same(kind: str, tmp_path: Path) -> None:
    root = _root(tmp_path / "a" / "here")
    first = _extract(kind, root, tmp_path / "out" / "1").metadata["fingerprint"]
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = tmp_path / "b" / "here"
    second = _extract(kind, moved, tmp_path / "out" / "2").metadata["fingerprint"]
    assert first == second
