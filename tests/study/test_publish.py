"""What makes a report another one."""

from dataclasses import replace
from pathlib import Path

import pytest

from dfl.evaluation import METRICS
from dfl.study.design.settings import Settings
from dfl.study.publish import report_fingerprint
from dfl.study.run.cells import Outcome
from dfl.study.run.missing import CellRun
from tests.study.study_examples import cell, example


def test_fingerprint__of_rows_and_failures(tmp_path: Path) -> None:
    """Intervals rest on groups, which decide no cell's scores."""
    study = example(tmp_path)
    settings = Settings(tmp_path, "t", "auroc", 100, [], "")
    run = CellRun({cell("lda"): "ab"}, [Outcome(cell(name), "x") for name in ("p", "q")], 0, 0.0)
    first = report_fingerprint(run, study, settings)
    assert report_fingerprint(run, example(tmp_path), settings) == first
    for column in ("group", "generator"):
        frames = {
            seed: frame.assign(**{column: frame[column].str[:1]})
            for seed, frame in study.frames.items()
        }
        assert report_fingerprint(run, replace(study, frames=frames), settings) != first
    # failures come in the order in which processes meet them
    turned = replace(run, failures=run.failures[::-1])
    assert report_fingerprint(turned, study, settings) == first
    assert report_fingerprint(replace(run, failures=[]), study, settings) != first


def test_fingerprint__of_the_metrics_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished study is judged anew when there is a metric that its report lacks."""
    study = example(tmp_path)
    settings = Settings(tmp_path, "t", "auroc", 100, [], "")
    run = CellRun({cell("lda"): "ab"}, [], 0, 0.0)
    first = report_fingerprint(run, study, settings)
    monkeypatch.setitem(METRICS, "brier", METRICS["auroc"])
    assert report_fingerprint(run, study, settings) != first
