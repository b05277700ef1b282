import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dfl.heads.tasks.finetune
from dfl.artifacts import Store
from dfl.cli import main
from dfl.commands.detect import detect
from dfl.data import (
    JPEG,
    GaussianBlur,
    HorizontalFlip,
    ImageDataModule,
    Manifest,
    Pair,
    Pairs,
    Resize,
    Splits,
)
from dfl.errors import DataError
from dfl.evaluation import binary_metrics, read_scores
from dfl.heads.storage.checkpoint import copy_with_operating_point
from dfl.heads.tasks.finetune import FineTuneTask
from dfl.study.run.finetuning import NETWORK, fine_tune, score_network
from tests.runs import FIT, image_data


@pytest.fixture
def data(image_root: Path, tmp_path: Path) -> ImageDataModule:
    made = ImageDataModule(
        Pairs(image_root, {name: Pair(real=name, fake=name) for name in ("alpha", "beta")}),
        crop=Resize(32),
        train_transforms=[HorizontalFlip()],
        batch_size=24,
        splits=Splits(val_fraction=0.25, folder=tmp_path / "splits"),
    )
    made.prepare_data()
    made.setup()
    return made


def tiny(lr: float = 3e-3, **arguments: Any) -> FineTuneTask:
    adam = lambda parameters: torch.optim.Adam(parameters, lr=lr)  # noqa: E731
    settings = {"model": "test_resnet", "pretrained": False, "input_size": 32}
    return FineTuneTask(**settings | {"optimizer": adam} | arguments)


KEY = "ab" * 16
EPOCHS = 2


def run(data: ImageDataModule, folder: Path, **changes: Any) -> np.ndarray:
    """Fine-tune a network in a folder, and score images with it."""
    task, rows = changes.pop("task", tiny()), changes.pop("score", data.manifest)
    transforms = changes.pop("eval_transforms", [])
    settings: dict[str, Any] = {
        "train": data.manifest,
        "store": Store(NETWORK, folder),
        "key": KEY,
        "max_epochs": EPOCHS,
        "patience": None,
        "seed": 1,
        "accelerator": "cpu",
    }
    best = fine_tune(task, data=data, **settings | changes)
    assert [path.name for path in folder.iterdir()] == [KEY]
    assert {path.name for path in best.parent.iterdir()} == {"network.json", "network.ckpt"}
    return score_network(task, best, rows, data=data, eval_transforms=transforms, accelerator="cpu")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epoch of every training step that is made."""
    made: list[int] = []
    step = FineTuneTask.training_step

    def counted(self, batch, batch_idx):
        made.append(self.current_epoch)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(FineTuneTask, "training_step", counted)
    return made


def test_fine_tune__learns_and_leaves_task_and_random_state_alone(
    data: ImageDataModule, tmp_path: Path, capsys
) -> None:
    task = tiny()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    scores = run(data, tmp_path / "cell", task=task, max_epochs=6)
    assert torch.equal(torch.rand(3), expected)
    assert (task.model, task.weights) == (None, None)
    assert scores.dtype == np.float64
    test = data.manifest.frame["split"] == "test"
    assert binary_metrics(scores[test], data.manifest.frame["label"][test])["auroc"] == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all("images/s" in line for line in captured.err.splitlines())


@pytest.mark.parametrize(
    ("workers", "validated"),  # the best epoch counts, or the last
    [(0, True), (1, False)],
)
def test_fine_tune__an_interrupted_one_ends_as_it_would_have(
    data: ImageDataModule,
    tmp_path: Path,
    monkeypatch,
    steps: list[int],
    workers: int,
    validated: bool,
) -> None:
    """Where the folder is now, and whether workers decode, makes no difference."""
    data.num_workers = workers
    rows = data.manifest if validated else _training_images(data)
    whole = run(data, tmp_path / "whole", train=rows)
    batches = len(steps) // EPOCHS
    _stop_in_last_epoch(data, tmp_path / "cell", monkeypatch, train=rows)
    (tmp_path / "cell").rename(tmp_path / "moved")
    steps.clear()
    np.testing.assert_array_equal(run(data, tmp_path / "moved", train=rows), whole)
    assert steps == [EPOCHS - 1] * batches
    files = (tmp_path / name / KEY / "network.ckpt" for name in ("moved", "whole"))
    one, other = (torch.load(file, weights_only=True)["state_dict"] for file in files)
    assert all(torch.equal(one[name], other[name]) for name in other)


def _training_images(data: ImageDataModule) -> Manifest:
    frame = data.manifest.frame.query("split == 'train'").reset_index(drop=True)
    return Manifest(frame, data.manifest.root)


def _stop_in_last_epoch(data: ImageDataModule, folder: Path, monkeypatch, **changes: Any) -> Path:
    """Interrupt a training; give the folder that keeps it."""
    with monkeypatch.context() as patch:
        patch.setattr(FineTuneTask, "on_train_epoch_start", _stop_at_last_epoch, raising=False)
        with pytest.raises(RuntimeError, match="stopped"):
            run(data, folder, **changes)
    assert not (folder / KEY).exists()
    kept = Store(NETWORK, folder).workspace(KEY)
    assert (kept / "last.ckpt").exists()
    return kept


def test_fine_tune__begins_anew_where_its_last_epoch_cannot_be_read(
    data: ImageDataModule, tmp_path: Path, monkeypatch, caplog
) -> None:
    whole = run(data, tmp_path / "whole")
    last = _stop_in_last_epoch(data, tmp_path / "cell", monkeypatch) / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    np.testing.assert_array_equal(run(data, tmp_path / "cell"), whole)
    assert "last.ckpt cannot be read" in caplog.text


def test_fine_tune__a_damaged_one_is_named_and_made_anew(
    data: ImageDataModule, tmp_path: Path, steps: list[int], caplog
) -> None:
    whole = run(data, tmp_path / "cell", max_epochs=1)
    steps.clear()
    file = tmp_path / "cell" / KEY / "network.ckpt"
    file.write_bytes(file.read_bytes()[:-1])
    np.testing.assert_array_equal(run(data, tmp_path / "cell", max_epochs=1), whole)
    assert caplog.text.count("network.ckpt: damaged; it is made anew") == 1
    assert steps


def _stop_at_last_epoch(task: FineTuneTask) -> None:
    if task.current_epoch == EPOCHS - 1:
        raise RuntimeError("stopped")


def test_fine_tune__a_finished_one_is_not_repeated(
    data: ImageDataModule, tmp_path: Path, steps: list[int]
) -> None:
    first = run(data, tmp_path / "cell", max_epochs=2)
    assert steps
    steps.clear()
    np.testing.assert_array_equal(run(data, tmp_path / "cell", max_epochs=2), first)
    assert steps == []


@pytest.mark.slow
def test_fine_tune__killed_after_its_last_epoch_it_does_not_go_on(
    data: ImageDataModule, tmp_path: Path, monkeypatch, steps: list[int]
) -> None:
    """Whether early stopping or the number of epochs ended it, no epoch more is made."""
    for name, settings in {
        "stopped": {"task": tiny(lr=1.0), "max_epochs": 30, "patience": 1},
        "complete": {"max_epochs": 2, "patience": 9},
        "unvalidated": {"max_epochs": 2, "patience": None, "train": _training_images(data)},
    }.items():
        scores = run(data, tmp_path / "whole" / name, **settings)
        with monkeypatch.context() as patch:
            patch.setattr("shutil.copyfile", _stop)
            with pytest.raises(RuntimeError, match="stopped"):
                run(data, tmp_path / name, **settings)
        steps.clear()
        np.testing.assert_array_equal(run(data, tmp_path / name, **settings), scores)
        assert steps == []


def _stop(*_: object) -> None:
    raise RuntimeError("stopped")


def test_fine_tune__other_seed_other_scores_same_seed_same_scores(
    data: ImageDataModule, tmp_path: Path
) -> None:
    one, same, other = (
        run(data, tmp_path / name, max_epochs=1, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_fine_tune__scores_are_those_of_dfl_test_and_detect(
    data: ImageDataModule, image_root: Path, tmp_path: Path, monkeypatch
) -> None:
    scores = run(data, tmp_path / "cell", score=data.manifest.select("test"))
    monkeypatch.chdir(tmp_path)
    best = tmp_path / "cell" / KEY / "network.ckpt"
    model = ["--model=dfl.heads.FineTuneTask", "--model.model=test_resnet", "--model.input_size=32"]
    main(["test", *FIT, *model, *image_data(image_root), f"--ckpt_path={best}"])
    tested = read_scores(next(tmp_path.glob("runs/**/scores.csv")))
    assert tested["path"].tolist() == data.manifest.select("test").frame["path"].tolist()
    np.testing.assert_allclose(scores, tested["score"], rtol=1e-6)
    machine = {"accelerator": "cpu", "devices": 1, "num_workers": 0}
    detected = detect(best, image_root, tmp_path / "d.csv", **machine).set_index("path")["score"]
    np.testing.assert_allclose(detected.loc[tested["path"]], scores, rtol=1e-5)
    chosen = tmp_path / "network.ckpt"
    copy_with_operating_point(best, chosen, float(np.median(scores)), (2.0, -1.0))
    detect(chosen, image_root, tmp_path / "c.csv", **machine)
    table = pd.read_csv(tmp_path / "c.csv").set_index("path").loc[tested["path"]]
    np.testing.assert_allclose(table["score"], scores - np.median(scores), rtol=1e-4, atol=1e-6)
    assert (table["verdict"] == "fake").tolist() == (table["score"] > 0).tolist()
    np.testing.assert_allclose(table["prob"], 1 / (1 + np.exp(1 - 2 * scores)), rtol=1e-4)
    shutil.rmtree(tmp_path / "runs")
    main(["test", *FIT, *model, *image_data(image_root), f"--ckpt_path={chosen}"])
    again = read_scores(next(tmp_path.glob("runs/**/scores.csv")))["score"]
    np.testing.assert_allclose(again, scores - np.median(scores), rtol=1e-4, atol=1e-6)
    with pytest.raises(Exception, match=r"weights for \['clip'\], but .* has the backbones \[\]"):
        detect(best, image_root, tmp_path / "e.csv", {"clip": "w.safetensors"}, **machine)


def test_fine_tune__each_row_its_image_and_its_transforms(
    data: ImageDataModule, tmp_path: Path, steps: list[int]
) -> None:
    frame = data.manifest.frame
    doubled = pd.concat([frame.iloc[[7, 3]], frame.iloc[[7]].assign(dataset="again")])
    rows = Manifest(doubled.reset_index(drop=True), data.manifest.root)
    every = run(data, tmp_path / "cell", max_epochs=1)
    few = run(data, tmp_path / "cell", max_epochs=1, score=rows)
    np.testing.assert_allclose(few, every[[7, 3, 7]], rtol=1e-5)
    steps.clear()
    blurred = run(data, tmp_path / "cell", max_epochs=1, eval_transforms=[GaussianBlur(2.0)])
    assert steps == []
    assert not np.allclose(blurred, every)
    data.eval_transforms = [GaussianBlur(2.0)]
    also = run(data, tmp_path / "other", max_epochs=1, eval_transforms=[JPEG(30)])
    assert not np.allclose(also, blurred)


def test_fine_tune__stops_when_validation_gets_no_better(
    data: ImageDataModule, tmp_path: Path, steps: list[int]
) -> None:
    run(data, tmp_path / "cell", task=tiny(lr=1.0), max_epochs=30, patience=1)
    assert 2 <= max(steps) + 1 < 30
    steps.clear()
    run(data, tmp_path / "cell", task=tiny(lr=1.0), max_epochs=30, patience=1)
    assert steps == []


def test_fine_tune__without_validation_the_last_epoch_counts(
    data: ImageDataModule, tmp_path: Path, steps: list[int]
) -> None:
    rows = _training_images(data)
    scores = run(data, tmp_path / "cell", train=rows, max_epochs=2, patience=1)
    assert np.isfinite(scores).all()
    assert max(steps) == 1
    kept = torch.load(tmp_path / "cell" / KEY / "network.ckpt", weights_only=True)
    assert kept["epoch"] == 1


def test_fine_tune__resuming_needs_no_first_weights(
    data: ImageDataModule, tmp_path: Path, monkeypatch
) -> None:
    built: list[bool] = []

    class Counted(dfl.heads.tasks.finetune.ImageClassifier):
        def __init__(self, model: str, **arguments: Any) -> None:
            built.append(arguments["pretrained"])
            super().__init__(model, **arguments | {"pretrained": False})

    monkeypatch.setattr(dfl.heads.tasks.finetune, "ImageClassifier", Counted)
    _stop_in_last_epoch(data, tmp_path / "cell", monkeypatch, task=tiny(pretrained=True))
    assert built == [True]
    run(data, tmp_path / "cell", task=tiny(pretrained=True))
    assert built == [True, False, False]


def test_fine_tune__nothing_to_learn_from(data: ImageDataModule, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image is in the train split; give a table in which"):
        run(data, tmp_path / "cell", train=data.manifest.select("test"))
