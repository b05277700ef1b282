import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch import Trainer
from PIL import Image

from dfl import Detector
from dfl.commands.detect import detect
from dfl.data import ImageDataModule, Pair, Pairs, Resize, Splits
from dfl.errors import BackboneError, CheckpointError, ConfigError, DataError
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
