import logging

import pandas as pd
import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image

from dfl.evaluation import metric_table
from dfl.report.runs import wandb_report
from dfl.report.runs.run_dir import run_dir
from dfl.report.runs.wandb_report import WandbReport
from tests.report.tiny_run import TinyData, TinyTask, six_scores, tiny_trainer
from tests.report.wandb_files import OfflineRun

pytestmark = pytest.mark.usefixtures("own_wandb")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for index, name in enumerate("abcd"):
        Image.new("RGB", (40, 20), (60 * index, 0, 0)).save(root / f"{name}.png")
    (root / "e.png").write_bytes(b"broken")
    return root  # f.png is missing


def test_wandb_report__offline_run_reads_back(tmp_path, images, caplog):
    logger = WandbLogger(project="p", offline=True, save_dir=tmp_path)
    logger.experiment.config.update({"lr": 0.1})
    trainer = tiny_trainer(tmp_path, logger=logger, callbacks=[WandbReport(5, size_px=16)])
    data = TinyData(images)
    trainer.fit(TinyTask(six_scores()), data)
    trainer.test(TinyTask(six_scores()), data, verbose=False)
    assert run_dir(trainer) == tmp_path / "p" / logger.experiment.id
    wandb.finish()
    wandb.teardown()  # waits until the files are complete

    run = OfflineRun(tmp_path)
    assert run.config["lr"] == 0.1
    assert "train/loss" in run.history
    for prefix in ("val", "test"):
        for key in ("roc", "confusion"):
            with Image.open(run.media(f"{prefix}/{key}")) as figure:
                assert min(figure.size) > 300
        assert_results(run, f"{prefix}/results")
        assert_mistakes(run, f"{prefix}/most_wrong")
    assert "no thumbnail of f.png" in caplog.text
    assert "no thumbnail of e.png" in caplog.text
    assert "2 of 5 thumbnails left out" in caplog.text


def assert_results(run, key):
    columns, rows = run.table(key)
    expected = metric_table(six_scores())
    assert columns == expected.columns.tolist()
    back = pd.DataFrame(rows, columns=columns)
    pd.testing.assert_frame_equal(back, expected, check_dtype=False)


def assert_mistakes(run, key):
    columns, rows = run.table(key)
    cells = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [cell["path"] for cell in cells] == ["f.png", "a.png", "e.png", "b.png", "c.png"]
    assert [cell["wrong"] for cell in cells] == [True, True, False, False, False]
    assert [cell["truth"] for cell in cells] == ["fake", "real", "fake", "real", "real"]
    assert [cell["score"] for cell in cells] == [-1.5, 0.5, 1.0, -2.0, -3.0]
    assert [cell["image"] is None for cell in cells] == [True, False, True, False, False]
    captions, files = run.history[f"{key}_images/captions"], run.history[f"{key}_images/filenames"]
    assert captions[0] == "real, fake with 62.2 %: a.png"
    assert [caption.split(": ")[1] for caption in captions] == ["a.png", "b.png", "c.png"]
    with Image.open(run.folder / "files" / files[1]) as picture:
        assert picture.size == (16, 8)
        assert picture.convert("RGB").getpixel((8, 4)) == (60, 0, 0)


def test_wandb_report__disabled(tmp_path, monkeypatch, images, caplog):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = WandbLogger(project="p", save_dir=tmp_path)
    trainer = tiny_trainer(tmp_path, logger=logger, callbacks=[WandbReport()])
    with caplog.at_level(logging.WARNING, "dfl"):
        trainer.fit(TinyTask(six_scores()), TinyData(images))
        trainer.test(TinyTask(six_scores()), TinyData(images), verbose=False)
    assert "failed" not in caplog.text
    assert list(tmp_path.rglob("*.wandb")) == []


def test_wandb_report__without_images(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    trainer = tiny_trainer(
        tmp_path, logger=WandbLogger(save_dir=tmp_path), callbacks=[WandbReport()]
    )
    with caplog.at_level(logging.WARNING, "dfl"):
        trainer.test(TinyTask(six_scores()), TinyData(), verbose=False)
    assert "6 of 6 thumbnails left out" in caplog.text
    assert "failed" not in caplog.text


def test_wandb_report__a_failing_report_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def broken(*_, **__):
        raise RuntimeError("no figure today")

    monkeypatch.setattr(wandb_report, "roc_figure", broken)
    trainer = tiny_trainer(
        tmp_path, logger=WandbLogger(save_dir=tmp_path), callbacks=[WandbReport()]
    )
    trainer.test(TinyTask(six_scores()), TinyData(), verbose=False)
    assert "W&B report of test failed: RuntimeError: no figure today" in caplog.text


def test_wandb_report__does_nothing_without_wandb(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_report, "task_scores", None)  # would fail if it were called
    trainer = tiny_trainer(tmp_path, logger=CSVLogger(tmp_path), callbacks=[WandbReport()])
    trainer.test(TinyTask(six_scores()), TinyData(), verbose=False)


def test_wandb_report__nothing_labelled(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="dfl")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    trainer = tiny_trainer(
        tmp_path, logger=WandbLogger(save_dir=tmp_path), callbacks=[WandbReport()]
    )
    trainer.test(TinyTask(six_scores().assign(label=-1)), TinyData(), verbose=False)
    assert "no labelled image has a score" in caplog.text
