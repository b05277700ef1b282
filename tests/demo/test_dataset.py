from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfl.data.manifest.manifest import Manifest
from dfl.demo.crops import imitated_crops
from dfl.demo.dataset import FAMILIES, cut_sheet, write_demo
from dfl.demo.photographs import PHOTOGRAPHS
from dfl.errors import ConfigError

pytest.importorskip("skimage", reason="needs the extra [demo]")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo"
    return write_demo(folder)


def test_write_demo__manifest_is_valid_on_disk(written):
    read = Manifest.read(written.root / "manifest.csv")

    assert read.frame.equals(written.frame)
    assert set(read.frame["dataset"]) == {"demo_gan", "demo_diffusion", "demo_vae"}
    assert set(read.frame["generator"]) == {"real", *FAMILIES}


def test_write_demo__split_follows_the_photograph(written):
    split_of = {p.name: p.split for p in PHOTOGRAPHS}

    assert (written.frame["split"] == written.frame["group"].map(split_of)).all()
    assert all(p.split("/")[1] == g for p, g in written.frame[["path", "group"]].to_numpy())


def test_write_demo__real_images_serve_every_pair(written):
    real = written.frame[written.frame["label"] == 0]
    by_pair = [set(part["path"]) for _, part in real.groupby("dataset")]

    assert len(by_pair) == 3
    assert by_pair[0] == by_pair[1] == by_pair[2]


def test_write_demo__pairs_are_balanced_outside_training(written):
    counts = written.frame.groupby(["split", "dataset", "label"]).size()

    for split in ("val", "test"):
        assert counts[split].nunique() == 1
    once = written.frame.drop_duplicates("path")
    training = once[once["split"] == "train"]["label"]
    assert (training == 0).sum() == (training == 1).sum()


def test_write_demo__both_classes_have_one_format_and_size(written):
    kinds = set()
    for path in set(written.paths()):
        with Image.open(path) as image:
            kinds.add((image.format, image.mode, image.size, tuple(sorted(image.info))))

    assert kinds == {("PNG", "RGB", (64, 64), ())}


def test_write_demo__does_nothing_when_complete(written):
    before = {p: p.stat().st_mtime_ns for p in set(written.paths())}

    write_demo(written.root)

    assert {p: p.stat().st_mtime_ns for p in set(written.paths())} == before


@pytest.fixture
def one_photograph(monkeypatch):
    monkeypatch.setattr("dfl.demo.dataset.PHOTOGRAPHS", PHOTOGRAPHS[:1])


@pytest.mark.usefixtures("one_photograph")
def test_write_demo__repairs_an_altered_folder(tmp_path):
    manifest = write_demo(tmp_path / "demo")
    first, second = manifest.paths()[:2]
    original = second.read_bytes()
    first.unlink()
    second.write_bytes(b"")

    write_demo(tmp_path / "demo")

    assert first.is_file()
    assert second.read_bytes() == original
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


@pytest.mark.usefixtures("one_photograph")
def test_write_demo__keeps_files_of_others(tmp_path):
    mine = tmp_path / "real" / "holiday.jpg"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")

    with pytest.raises(ConfigError, match=r"such as 'real/holiday\.jpg': give a new or an empty"):
        write_demo(tmp_path)

    assert mine.read_bytes() == b"precious"


@pytest.mark.parametrize("family", FAMILIES)
def test_cut_sheet__imitations_share_exposure_but_no_pixels(family):
    for photograph in PHOTOGRAPHS:
        drawn = [np.asarray(image, dtype=float) for image in cut_sheet(family, photograph)]
        real = [np.asarray(crop.image, dtype=float) for crop in imitated_crops(photograph)]
        for a, b in zip(drawn, real, strict=True):
            assert abs(a.mean() - b.mean()) < 3.0
            assert abs(a.std() - b.std()) < 6.0
            assert not np.array_equal(a, b)


def test_images__fit_into_six_megabytes():
    folder = Path(str(files("dfl.demo") / "images"))
    sheets = list(folder.glob("*/*.png"))

    assert len(sheets) == len(FAMILIES) * len(PHOTOGRAPHS)
    assert sum(sheet.stat().st_size for sheet in sheets) < 6_000_000
