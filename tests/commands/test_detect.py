import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dfl.commands.detect import detect
from dfl.errors import CheckpointError, ConfigError, DataError
from dfl.evaluation import read_scores
from dfl.features import FeatureStore
from dfl.heads.storage.head_folder import load_head, save_head
from tests.detector.trained import train_detectors

CPU = {"accelerator": "cpu", "devices": 1, "num_workers": 0}


@pytest.fixture(scope="module")
def folder(image_root: Path, tmp_path_factory) -> Path:
    """Features of two backbones, and heads that were trained on the second one alone."""
    root = tmp_path_factory.mktemp("detect")
    train_detectors(root, image_root)
    return root


def _by_path(table: pd.DataFrame) -> np.ndarray:
    return table.sort_values("path")["score"].to_numpy()


@pytest.mark.parametrize(
    ("detector", "reference"), [("probe.ckpt", "probe.csv"), ("heads/lda", "heads/lda/scores.csv")]
)
def test_detect__pixels_give_the_scores_of_the_chosen_layer(
    folder: Path, image_root: Path, tmp_path: Path, detector: str, reference: str
) -> None:
    scores = detect(folder / detector, image_root / "alpha", tmp_path / "d.csv", **CPU)
    written = pd.read_csv(tmp_path / "d.csv")
    if reference.startswith("heads"):
        expected = read_scores(folder / reference)
    else:
        expected = pd.read_csv(folder / reference)
    assert len(FeatureStore.open(folder / "features").spec) == 2
    np.testing.assert_allclose(_by_path(written), _by_path(expected), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(written["prob"], 1 / (1 + np.exp(-written["score"])), rtol=1e-6)
    assert (written["verdict"] == "fake").tolist() == (scores["score"] > 0).tolist()


def test_detect__bottleneck_with_a_classifier_only(folder: Path, image_root, tmp_path) -> None:
    scores = detect(folder / "bottleneck.ckpt", image_root / "alpha", tmp_path / "d.csv", **CPU)
    assert len(scores) == 24
    with pytest.raises(ConfigError, match="gives no scores; for its codes use `dfl encode`"):
        detect(folder / "unlabelled.ckpt", image_root / "alpha", tmp_path / "u.csv", **CPU)
    assert not (tmp_path / "u.csv").exists()


def test_detect__weights_that_have_moved(folder: Path, image_root, tmp_path, monkeypatch) -> None:
    images = image_root / "alpha"
    moved = (folder / "second.safetensors").rename(tmp_path / "moved.safetensors")
    try:
        weights = {"second": str(moved)}
        scores = detect(folder / "probe.ckpt", images, tmp_path / "d.csv", weights, **CPU)
        assert len(scores) == 24
        # other weights are another backbone
        weights = {"second": str(folder / "first.safetensors")}
        with pytest.raises(CheckpointError, match=r"'second.pooled' has the fingerprint"):
            detect(folder / "probe.ckpt", images, tmp_path / "e.csv", weights, **CPU)
        # the first backbone was not used, so it is not there
        weights = {"first": str(moved)}
        with pytest.raises(CheckpointError, match=r"\['first'\], but .* has the backb.*'second'"):
            detect(folder / "probe.ckpt", images, tmp_path / "e.csv", weights, **CPU)
    finally:
        moved.rename(folder / "second.safetensors")


def test_detect__unreadable_images_are_listed(folder: Path, image_copy: Path, tmp_path) -> None:
    (image_copy / "alpha" / "0_real" / "000.png").write_text("no image")
    scores = detect(
        folder / "probe.ckpt", image_copy / "alpha", tmp_path / "d.csv", on_unreadable="skip", **CPU
    )
    assert len(scores) == 23
    assert "000.png" in (tmp_path / "d-unreadable.csv").read_text()


@pytest.mark.parametrize("name", ["d", "d.parquet"])
def test_detect__result_is_a_csv(folder: Path, image_root, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"out: must end in .csv, got .*/d"):
        detect(folder / "probe.ckpt", image_root / "alpha", tmp_path / name, **CPU)


def test_detect__a_checkpoint_of_unknown_features_or_of_a_foreign_task(
    folder: Path, image_root: Path, tmp_path: Path
) -> None:
    content = torch.load(folder / "probe.ckpt")
    for key, value, message in (
        ("backbones", None, "does not say which backbones make its features"),
        ("task", "my.Task", r"holds a my.Task, which .* my.Task is not a class of dfl"),
    ):
        torch.save(content | {"dfl": content["dfl"] | {key: value}}, tmp_path / "c.ckpt")
        with pytest.raises(CheckpointError, match=message):
            detect(tmp_path / "c.ckpt", image_root / "alpha", tmp_path / "d.csv", **CPU)


def test_detect__threshold_and_calibration_of_the_head(
    folder: Path, image_root: Path, tmp_path: Path, caplog
) -> None:
    plain = detect(folder / "heads" / "lda", image_root / "alpha", tmp_path / "d.csv", **CPU)
    threshold = float(np.sort(plain["score"])[-6])  # five images lie above it
    head = replace(load_head(folder / "heads" / "lda"), threshold=threshold)
    save_head(replace(head, calibration=(0.2, -0.7)), tmp_path / "head")
    with caplog.at_level(logging.INFO, logger="dfl"):
        detect(tmp_path / "head", image_root / "alpha", tmp_path / "e.csv", **CPU)
    said = [record.getMessage() for record in caplog.records if "e.csv" in record.getMessage()]
    assert said == [f"wrote {tmp_path / 'e.csv'}: 24 images, 5 of them judged fake"]
    written = pd.read_csv(tmp_path / "e.csv")
    raw = pd.read_csv(tmp_path / "d.csv")["score"]
    np.testing.assert_allclose(written["score"], raw - threshold, rtol=1e-12, atol=1e-12)
    expected = 1 / (1 + np.exp(0.7 - 0.2 * raw))
    np.testing.assert_allclose(written["prob"], expected, rtol=1e-9)
    assert (written["verdict"] == "fake").tolist() == (plain["score"] > threshold).tolist()
    assert (written["verdict"] == "fake").sum() == 5


def test_detect__files_patterns_and_folders(
    folder: Path, image_root: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(image_root)
    detector = folder / "heads" / "lda"
    whole = detect(detector, Path("alpha"), tmp_path / "whole.csv", **CPU).set_index("path")
    for number, (images, names) in enumerate(
        (
            (Path("alpha/0_real/000.png"), ["0_real/000.png"]),
            (
                Path("alpha/*/00[01].png"),
                [f"{s}/00{i}.png" for s in ("0_real", "1_fake") for i in (0, 1)],
            ),
            (
                [Path("alpha/1_fake/003.png"), Path("alpha/0_real/001.png")],
                ["1_fake/003.png", "0_real/001.png"],
            ),
        )
    ):
        out = tmp_path / f"{number}.csv"
        detect(detector, images, out, **CPU)
        written = pd.read_csv(out)
        assert written["path"].tolist() == [f"alpha/{name}" for name in names]
        np.testing.assert_allclose(written["score"], whole["score"][names], rtol=1e-5, atol=1e-5)


def test_detect__a_file_that_is_no_image(folder: Path, tmp_path: Path) -> None:
    for name in ("notes.txt", "images.csv"):
        (tmp_path / name).write_text("no image")
        with pytest.raises(DataError, match=f"{name}: not named as an image; give images or fold"):
            detect(folder / "probe.ckpt", tmp_path / name, tmp_path / "d.csv", **CPU)
    images = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    with pytest.raises(DataError, match=r"a.jpg, .*b.jpg: no such file or folder; give images, f"):
        detect(folder / "probe.ckpt", images, tmp_path / "d.csv", **CPU)
