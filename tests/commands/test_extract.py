"""The command itself; what it does is tested in tests/features/test_extraction.py."""

from pathlib import Path

import pytest
import yaml

from dfl.app.parser import run_command
from dfl.commands.extract import extract
from dfl.data import Folder, ImageDataModule, Resize
from dfl.errors import BackboneError
from dfl.features import FeatureStore
from tests.features.small_extraction import backbone, images, run


def test_extract__says_what_it_wrote(tmp_path: Path, capsys) -> None:
    run(images(tmp_path / "images"), tmp_path / "f", backbone())
    out = capsys.readouterr().out
    assert f"wrote {tmp_path}/f: 18 rows x 6 values (m.mean, m.square)" in out


def test_extract__says_the_precision_that_it_chose(tmp_path: Path, monkeypatch, caplog) -> None:
    caplog.set_level("INFO", "dfl")
    monkeypatch.setattr("dfl.backbones.precision._bf16_of_cpu", lambda: None)
    store = run(images(tmp_path / "images"), tmp_path / "f", backbone(), precision="auto")
    assert store.metadata["precision"] == "32-true"
    assert "precision: 32-true, since no fast 16-bit arithmetic is known" in caplog.text


def test_extract__says_that_weights_are_random(tmp_path: Path, monkeypatch, caplog) -> None:
    made = backbone()
    run(images(tmp_path / "images", 4), tmp_path / "f", made)
    assert "random weights" not in caplog.text
    monkeypatch.setattr("dfl.commands.extract.has_random_weights", lambda recipe: True)
    run(images(tmp_path / "images", 4), tmp_path / "f", made)
    assert "m: random weights (pretrained: false), other ones in each run" in caplog.text


def test_extract__needs_a_backbone(tmp_path: Path) -> None:
    data = ImageDataModule(Folder(tmp_path), crop=Resize(8))
    with pytest.raises(BackboneError, match="no backbones; give at least one"):
        extract(data, {}, tmp_path / "f")


def test_extract__one_config_file_and_an_option(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {
        "data": {
            "class_path": "ImageDataModule",
            "init_args": {
                "source": {
                    "class_path": "ManifestFile",
                    "init_args": {"path": str(images(tmp_path / "images", 4))},
                },
                "crop": {"class_path": "dfl.data.Resize", "init_args": {"size": 8}},
            },
        },
        "backbones": {"m": {"class_path": "tests.features.small_extraction.MeanColour"}},
        "out": "f",
        "accelerator": "cpu",
    }
    Path("c.yaml").write_text(yaml.safe_dump(config))
    run_command(extract, ["--config=c.yaml", "--devices=1", "--data.batch_size=3"])
    assert len(FeatureStore.open(Path("f")).manifest) == 6
    resolved = yaml.safe_load(Path("f/config.yaml").read_text())
    assert resolved["data"]["init_args"]["batch_size"] == 3
    assert resolved["devices"] == 1
    # the resolved config alone names the same features
    assert run_command(extract, ["--config=f/config.yaml"]).metadata["fingerprint"]
