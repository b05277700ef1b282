import pytest
import yaml

from dfl.app.renamed import renamed
from dfl.cli import main

OLD = """
data:
  class_path: dfl.data.ManifestDataModule
  init_args: {path: m.csv, augment: [], perturb: []}
views: {none: []}
view_use: [both]
classifiers:
  views: [{class_path: dfl.heads.reduction.pca}]
grids: {one: {classifiers: [svm]}}
metric: accuracy_val
claims: [{axis: view}, {axis: classifier}, {axis: features}]
backbones: {parts: {class_path: dfl.backbones.TimmBackbone}}
"""


def test_renamed__all_old_names_at_once() -> None:
    assert list(renamed(yaml.safe_load(OLD))) == [
        "data: dfl.data.ManifestDataModule is now dfl.data.ImageDataModule with the source "
        "dfl.data.ManifestFile",
        "data.path: is now data.source.path",
        "data.augment: is now data.train_transforms",
        "data.perturb: is now data.eval_transforms",
        "views: is now conditions",
        "view_use: is now condition_use",
        "classifiers: is now heads",
        "classifiers.views: dfl.heads.reduction.pca is now dfl.heads.estimators.pca",
        "grids.one.classifiers: is now grids.one.heads",
        "metric: accuracy_val is now accuracy_at_val_threshold",
        "claims.axis: view is now condition",
        "claims.axis: classifier is now head",
    ]


def test_renamed__the_name_itself_before_what_it_begins_with() -> None:
    old = "dfl.demo.study_parts."
    assert list(renamed({"data": f"{old}DemoDataModule", "backbones": f"{old}demo_backbone"})) == [
        "data: dfl.demo.study_parts.DemoDataModule is now dfl.data.ImageDataModule with the source "
        "dfl.demo.DemoImages",
        "backbones: dfl.demo.study_parts.demo_backbone is now dfl.demo.networks.demo_backbone",
    ]


def test_renamed__on_the_command_line(tmp_path, capsys) -> None:
    (tmp_path / "old.yaml").write_text(OLD)
    with pytest.raises(SystemExit):
        main(["study", f"--config={tmp_path / 'old.yaml'}", "--data.parts=[a]", "--nothing=1"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dfl study: error: data: dfl.data.ManifestDataModule is now dfl.data.Im")
    assert "; data.augment: is now data.train_transforms; " in line
    assert "data.parts: is now data.layers" in line
