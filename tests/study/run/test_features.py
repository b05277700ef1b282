from contextlib import nullcontext
from pathlib import Path

import pytest

from dfl.data import ImageDataModule, ManifestFile, Resize
from dfl.study.run.features import FeatureFolders
from tests.features.small_extraction import backbone, images


def _folders(tmp_path: Path) -> FeatureFolders:
    data = ImageDataModule(ManifestFile(images(tmp_path / "images")), crop=Resize(8), batch_size=2)
    data.prepare_data()
    data.setup()
    made = {"m": backbone(), "n": backbone(power=3)}
    root = tmp_path / "features"
    return FeatureFolders(data, made, {"plain": []}, root, "32-true", accelerator="cpu")


def _hashes_nothing(*_: object) -> str:
    raise RuntimeError("images are read")


def test_pending__one_of_several_processes_reads_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for it in the process group, half an hour at most."""
    _folders(tmp_path).extract("cpu", 1, 1, "auto")
    (tmp_path / "features" / "plain" / "n" / "features.json").unlink()
    monkeypatch.setattr("dfl.features.extraction.hash_images", _hashes_nothing)
    with pytest.raises(RuntimeError, match="images are read"):
        _ = _folders(tmp_path).pending
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    folders = _folders(tmp_path)
    assert folders.pending == {("plain", "m"): 0, ("plain", "n"): 12}
    assert not folders.complete


def test_seconds_per_image__on_the_device_that_runs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device ``meta`` stands in for a GPU; what waits for its results is left out."""
    folders = _folders(tmp_path)
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr("dfl.study.run.features._wait_for", seen.append)
    assert folders.seconds_per_image("m") > 0
    assert {value.device.type for layers in seen for value in layers.values()} == {"cpu"}
    other = folders._backbones["n"]
    monkeypatch.setattr(other, "to", lambda device: other.to_empty(device=device))
    folders._runner.device = "meta"
    monkeypatch.setattr("dfl.study.run.features.autocast", lambda *_: nullcontext())
    assert folders.seconds_per_image("n") > 0
    assert {value.device.type for layers in seen[2:] for value in layers.values()} == {"meta"}
    assert {len(value) for layers in seen[2:] for value in layers.values()} == {2}  # a batch
