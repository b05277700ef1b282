import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from dfl import Detector
from dfl.backbones import FusedBackbone, PixelStatistics, Sensitivity, TimmBackbone
from dfl.backbones.runner import Runner
from dfl.commands.detect import detect
from dfl.commands.extract import extract
from dfl.commands.heads import heads
from dfl.data import CenterCrop, ImageDataModule, Pair, Pairs, Resize, Splits
from dfl.errors import BackboneError, CheckpointError, ConfigError, DataError
from dfl.heads.estimators import lda
from dfl.heads.storage.checkpoint import CHECKPOINT_KEY, read_checkpoint
from dfl.heads.storage.head_folder import load_head, save_head
from dfl.heads.tasks.finetune import FineTuneTask
from tests.detector.trained import train_detectors
from tests.heads.small_tasks import ADAM, trainer

CPU = {"accelerator": "cpu", "devices": 1, "num_workers": 0}


@pytest.fixture(scope="module")
def folder(image_root: Path, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("detector")
    train_detectors(root, image_root)
    head = replace(load_head(root / "heads" / "lda"), threshold=0.3, calibration=(0.2, -0.7))
    save_head(head, root / "best")
    finetune(root, image_root).save_checkpoint(root / "network" / "network.ckpt")
    return root


def finetune(root: Path, image_root: Path) -> Trainer:
    data = ImageDataModule(
        Pairs(image_root, {"alpha": Pair(real="alpha", fake="alpha")}),
        crop=Resize(32),
        batch_size=8,
        splits=Splits(val_fraction=0.25, folder=root / "splits"),
    )
    made = trainer(root, limit_val_batches=0)
    made.fit(FineTuneTask("test_resnet", pretrained=False, input_size=32, optimizer=ADAM), data)
    return made


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:.*number of training batches:UserWarning")
@pytest.mark.parametrize("name", ["probe.ckpt", "bottleneck.ckpt", "heads/lda", "best", "network"])
def test_detector__scores_are_those_of_detect(
    folder: Path, image_root: Path, tmp_path: Path, name: str
) -> None:
    path = folder / name
    images = image_root / "alpha"
    command = path / "network.ckpt" if name == "network" else path
    detect(command, images, tmp_path / "d.csv", batch_size=10, **CPU)
    written = pd.read_csv(tmp_path / "d.csv", dtype=str)  # to compare every digit
    files = [images / image for image in written["path"]]
    found = Detector.load(path)(files, batch_size=10)
    assert list(found.columns) == ["path", "score", "prob", "is_fake"]
    assert found["path"].tolist() == [str(file) for file in files]
    for column in ("score", "prob"):
        assert found[column].tolist() == [float(value) for value in written[column]]
    assert found["is_fake"].tolist() == (written["verdict"] == "fake").tolist()


def _trained_in(recorded: str, path: Path, folder: Path) -> Path:
    """Copy a detector, which then says that it was trained in another precision."""
    folder.mkdir()
    run = {"precision": recorded, "engine": "eager"}
    if path.suffix != ".ckpt":
        head = load_head(path)
        save_head(replace(head, origin=head.origin._replace(execution=run)), folder / "head")
        return folder / "head"
    checkpoint = read_checkpoint(path)
    checkpoint[CHECKPOINT_KEY]["execution"] = run
    torch.save(checkpoint, folder / "other.ckpt")
    return folder / "other.ckpt"


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.parametrize("name", ["probe.ckpt", "heads/lda", "network/network.ckpt"])
@pytest.mark.parametrize("recorded", ["bf16-mixed", "bf16-true"])
def test_detector__scores_in_the_precision_of_its_training(
    folder: Path, image_root: Path, tmp_path: Path, monkeypatch, caplog, name: str, recorded: str
) -> None:
    if recorded == "bf16-true" and name.startswith("network"):
        return  # no trainer has it
    made = _trained_in(recorded, folder / name, tmp_path / "copy")
    files = sorted((image_root / "alpha").rglob("*.png"))
    exact = Detector.load(folder / name)(files)["score"].tolist()
    caplog.set_level("INFO", "dfl.backbones.precision")
    scores = {}
    for unit in ("AMX", None):
        monkeypatch.setattr("dfl.backbones.precision._bf16_of_cpu", lambda unit=unit: unit)
        caplog.clear()
        found = scores[unit] = Detector.load(made)(files)["score"].tolist()
        detect(made, files, tmp_path / "d.csv", overwrite=True, **CPU)
        written = pd.read_csv(tmp_path / "d.csv", dtype=str)["score"]
        assert found == [float(value) for value in written]
        taken = recorded if unit else "32-true"
        assert [line.split(",")[0] for line in caplog.messages] == [f"precision: {taken}"] * 2
    assert scores[None] == exact != scores["AMX"]
    np.testing.assert_allclose(scores["AMX"], exact, rtol=0.2, atol=0.2)
    assert Detector.load(made, precision="32-true")(files)["score"].tolist() == exact
    asked = Detector.load(made, precision=recorded)  # whatever the processor has
    assert asked(files)["score"].tolist() == scores["AMX"]


def test_load__backbones_run_as_a_runner_has_them(folder: Path, image_root: Path) -> None:
    files = sorted((image_root / "alpha" / "0_real").iterdir())
    detector = Detector.load(folder / "probe.ckpt", precision="bf16-mixed")
    images = torch.stack([detector._sample(file, 0)["image"] for file in files])
    weights = str(folder / "second.safetensors")
    backbone = FusedBackbone({"second": TimmBackbone("test_vit", weights=weights, input_size=32)})
    with Runner(backbone, precision="bf16-mixed") as runner:
        features = runner.submit("second", images).result()["second.pooled"]
    with torch.no_grad():
        expected = detector.task.model(features).flatten()
    np.testing.assert_allclose(detector(files)["score"], expected, rtol=1e-3, atol=1e-3)


def test_detector__paths_texts_and_opened_images_score_alike(
    folder: Path, image_root: Path, tmp_path: Path
) -> None:
    png = image_root / "alpha" / "0_real" / "000.png"
    turned = Image.open(png).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    detector = Detector.load(str(folder / "best"))
    for file in (png, tmp_path / "turned.jpg"):
        found = detector(file)
        assert found["path"].tolist() == [str(file)]
        for same in (str(file), Image.open(file)):
            pd.testing.assert_frame_equal(detector(same), found)
        made = detector(Image.open(file).copy())  # of which no file is known
        assert made["path"].tolist() == ["image 0"]


def test_detector__one_image_and_none(folder: Path, image_root: Path) -> None:
    detector = Detector.load(folder / "probe.ckpt")
    file = image_root / "alpha" / "0_real" / "000.png"
    pd.testing.assert_frame_equal(detector(str(file)), detector([file]))
    assert detector([]).shape == (0, 4)


def test_detector__what_is_no_image_is_named(folder: Path, tmp_path: Path) -> None:
    detector = Detector.load(folder / "probe.ckpt")
    (tmp_path / "a.png").write_text("no image")
    for image, message in (
        (tmp_path / "a.png", r"a\.png: is text"),
        (tmp_path / "none.png", r"none\.png: no such image"),
        (3, "image 0 is a int; give a path, or an image of Pillow"),
    ):
        with pytest.raises(DataError, match=message):
            detector([image])
    with pytest.raises(ConfigError, match="gives no scores"):
        Detector.load(folder / "unlabelled.ckpt")([Image.new("RGB", (40, 40))])


def test_load__weights_that_have_moved(folder: Path, tmp_path: Path) -> None:
    moved = (folder / "second.safetensors").rename(tmp_path / "moved.safetensors")
    image = Image.new("RGB", (40, 40), "red")
    try:
        with pytest.raises(BackboneError, match=r"weights=\{'second': FILE\}"):
            Detector.load(folder / "probe.ckpt")
        detector = Detector.load(folder / "probe.ckpt", weights={"second": moved})
    finally:
        shutil.move(moved, folder / "second.safetensors")
    assert len(detector(image)) == 1


def test_load__backbones_without_weights_and_of_another_one(
    folder: Path, image_root: Path, tmp_path: Path
) -> None:
    weights = shutil.copy(folder / "second.safetensors", tmp_path / "first.safetensors")
    network = TimmBackbone("test_vit", weights=str(weights), input_size=32)
    made = {"pixels": PixelStatistics(["dct", "residual"]), "floor": Sensitivity(network)}
    data = ImageDataModule(
        Pairs(image_root, {"alpha": Pair(real="alpha", fake="alpha")}),
        crop=CenterCrop(32),
        splits=Splits(folder=tmp_path / "splits"),
    )
    store = extract(data, made, tmp_path / "features", accelerator="cpu", devices=1)
    layers = ["floor", "pixels.residual"]
    heads(store.path, tmp_path / "heads", heads={"lda": lda()}, layers=layers)
    expected = load_head(tmp_path / "heads" / "lda").score(store.matrix(layers))
    moved = Path(weights).rename(tmp_path / "moved.safetensors")

    detector = Detector.load(tmp_path / "heads" / "lda", weights={"floor": moved})

    found = detector(store.manifest.paths())["score"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_load__a_file_of_a_head_stands_for_its_folder(folder: Path) -> None:
    image = Image.new("RGB", (40, 40), "red")
    expected = Detector.load(folder / "best")(image)
    for name in ("head.json", "head.skops"):
        pd.testing.assert_frame_equal(Detector.load(folder / "best" / name)(image), expected)


def test_load__a_folder_of_several_names_them(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"heads: is not a .* in it: .*heads/lda$"):
        Detector.load(folder / "heads")
    with pytest.raises(CheckpointError, match=r"in it: .*best, .*bottleneck\.ckpt, .*heads/lda, "):
        Detector.load(folder)


def test_detector__a_folder_stands_for_its_images(folder: Path, image_root: Path) -> None:
    detector = Detector.load(folder / "probe.ckpt")
    place = image_root / "alpha" / "0_real"
    expected = detector(sorted(place.iterdir()))
    pd.testing.assert_frame_equal(detector(place), expected)
    pd.testing.assert_frame_equal(detector([str(place)]), expected)


def test_import__dfl_is_light() -> None:
    code = (
        "import sys, dfl; heavy = {'torch', 'pandas', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; assert 'Detector' in dir(dfl) and dfl.__version__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
