import numpy as np
import pandas as pd
import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from dfl.report.study.page import study_html
from dfl.report.study.wandb import log_study
from tests.report.study_pages import bare_page, full_page
from tests.report.wandb_files import OfflineRun

pytestmark = pytest.mark.usefixtures("own_wandb")


def logged(folder, page, results, files=()):
    logger = WandbLogger(project="p", offline=True, save_dir=folder)
    log_study(logger, page, results, files)
    summary = dict(logger.experiment.summary)
    wandb.finish()
    wandb.teardown()  # waits until the files are complete
    return OfflineRun(folder), summary


def test_log_study__offline_run_reads_back(tmp_path):
    page = full_page()
    results = pd.DataFrame(
        {
            "features": ["clip", "dino", "clip", "clip"],
            "reduction": ["pca", None, "pca", "pca"],
            "accuracy": [0.9, float("nan"), 0.8, 0.7],
            "split": ["test", "test", "val", "test"],
            "scope": ["macro", "unseen", "macro", "dataset"],
        }
    )
    numbers = tmp_path / "results.csv"
    results.to_csv(numbers)
    run, summary = logged(tmp_path, page, results, [numbers])
    columns, rows = run.table("study/results")
    assert columns == ["features", "reduction", "accuracy", "split", "scope"]
    assert rows[0] == ["clip", "pca", 0.9, "test", "macro"]
    assert rows[1][:2] == ["dino", None]
    assert np.isnan(rows[1][2])
    assert len(rows) == 2  # the rest is in the file
    (kept,) = [paths for name, paths in run.artifacts.items() if name.startswith("study-")]
    assert kept == ["results.csv"]
    for name in ("leaders", "effects", "claims", "metrics", "comparisons", "failures"):
        columns, rows = run.table(f"study/{name}")
        expected = getattr(page, name)
        assert columns == expected.columns.tolist()
        assert len(rows) == len(expected)
    assert run.table("study/leaders")[1][1][:4] == ["clip+dino", "pca", "linear_probe", "frozen"]
    assert run.media("study/page").read_text(encoding="utf-8") == study_html(page)
    assert run.config["study"]["pairs"] == [{"name": "progan", "fake": "<folder>"}]
    assert summary["study/best/test"] == pytest.approx(0.934)
    assert summary["study/best/reduction"] == "none"
    assert summary["study/failed_cells"] == 3
    assert summary["study/claims/held"] == 1


def test_log_study__empty_study(tmp_path):
    run, summary = logged(tmp_path, bare_page(config="a: [1"), pd.DataFrame())
    assert run.media("study/page").exists()
    assert "study/leaders/path" not in run.history
    assert run.config["study"] == "a: [1"
    assert summary["study/failed_cells"] == 0
