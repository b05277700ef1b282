from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from dfl.data import ColorJitter, ImageDataModule, Manifest, ManifestFile, RandomCrop, Resize
from dfl.errors import ConfigError, FeatureError
from dfl.study.run.features import Draws, FeatureFolders, check_draws, drawn_conditions
from tests.features.small_extraction import MeanColour, backbone, images


def _data(tmp_path: Path, groups: str = "") -> ImageDataModule:
    file = images(tmp_path / "images")
    if groups:
        manifest = Manifest.read(file)
        places = manifest.frame["path"].str[:2].astype(int)
        frame = manifest.frame.assign(group=[groups[place] for place in places])
        Manifest(frame, manifest.root).write(file)
    data = ImageDataModule(ManifestFile(file), crop=Resize(8), batch_size=2)
    data.prepare_data()
    data.setup()
    return data


def _folders(tmp_path: Path) -> FeatureFolders:
    made = {"m": backbone(), "n": backbone(power=3)}
    root = tmp_path / "features"
    return FeatureFolders(_data(tmp_path), made, {"plain": []}, root, "32-true", accelerator="cpu")


DRAWS = {"dimmed": Draws([ColorJitter(brightness=(0.1, 0.9))], count=2)}


def _drawn(
    tmp_path: Path,
    draws: Mapping[str, Draws] = DRAWS,
    groups: str = "aabbccddeeff",
    made: MeanColour | None = None,
) -> FeatureFolders:
    return FeatureFolders(
        _data(tmp_path, groups),
        {"m": made or backbone()},
        {"plain": []},
        tmp_path / "features",
        "32-true",
        accelerator="cpu",
        draws=draws,
    )


def _bytes(tmp_path: Path) -> dict[str, bytes]:
    """The features that are there, by file."""
    root = tmp_path / "features"
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*.npy")}


def test_draws__of_a_group_differ_in_the_image_alone(tmp_path: Path) -> None:
    folders = _drawn(tmp_path)
    folders.extract("cpu", 1, 1, "auto")
    assert list(folders.conditions) == ["plain", "dimmed.1", "dimmed.2"]
    rows = np.arange(18)
    plain, *draws = (
        folders.conditions[name].matrix(["m.mean"], rows) for name in folders.conditions
    )
    frame = folders.conditions["plain"].store("m").manifest.frame
    number = frame["path"].str[:2].astype(int).to_numpy()
    factors = np.empty((2, 6))
    for place, each in enumerate(draws):
        # brightness is a factor, whatever colour it meets, but for what 8 bit cut off
        factor = each.sum(axis=1) / plain.sum(axis=1)
        assert ((factor > 0.08) & (factor < 0.9)).all()
        for group in range(6):
            own = factor[number // 2 == group]
            np.testing.assert_allclose(own, own[0], atol=0.015)
            factors[place, group] = own[0]
    assert np.ptp(factors, axis=0).max() > 0.1  # draws differ
    assert np.ptp(factors, axis=1).min() > 0.1  # groups do


def test_draws__resume_with_the_same_bytes_and_cost_other_features_nothing(
    tmp_path: Path,
) -> None:
    _drawn(tmp_path, {}).extract("cpu", 1, 1, "auto")
    before = _bytes(tmp_path)
    made = backbone(fail_after=7)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        _drawn(tmp_path, made=made).extract("cpu", 1, 1, "auto")
    again = backbone()
    folders = _drawn(tmp_path, made=again)
    assert folders.pending["plain", "m"] == 0
    folders.extract("cpu", 1, 1, "auto")
    assert sum(again.batches) == 2 * 12
    resumed = _bytes(tmp_path)
    assert before.items() < resumed.items()
    other = tmp_path / "other"
    _drawn(other).extract("cpu", 1, 1, "auto")
    assert _bytes(other) == resumed
    assert not any(_drawn(tmp_path).pending.values())


def test_draws__of_other_groups_are_other_features(tmp_path: Path) -> None:
    _drawn(tmp_path).extract("cpu", 1, 1, "auto")
    with pytest.raises(FeatureError, match=r"dimmed\.1/m.*other features"):
        _ = _drawn(tmp_path, groups="abcdefghijkl").pending
    assert not any(_drawn(tmp_path, {}, groups="abcdefghijkl").pending.values())


def test_draws__what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    fixed = Draws([ColorJitter(brightness=0.5)])
    wrong = {"plain": DRAWS["dimmed"], "none": Draws([], count=0, beside=["plain", "blur"])}
    data = _data(tmp_path)
    with pytest.raises(ConfigError, match="nothing is random in its transforms and its crop"):
        check_draws({"fixed": fixed}, {"plain": []}, data)
    with pytest.raises(ConfigError) as caught:
        check_draws(wrong, {"plain": []}, data)
    for fault in (
        "draws.plain: a condition is called so too",
        "draws.none.count: must be at least 1, got 0",
        "draws.none.beside: no condition blur; there are: plain",
    ):
        assert fault in str(caught.value)
    check_draws({"cut": Draws(crop=RandomCrop(4)), **DRAWS}, {"plain": []}, data)


def test_drawn_conditions__of_the_draws_and_beside_them() -> None:
    draws = {**DRAWS, "more": Draws([], count=1, beside=["plain"])}
    assert drawn_conditions(draws) == {
        "dimmed": ("dimmed.1", "dimmed.2"),
        "more": ("more.1", "plain"),
    }


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
