"""What happens to cells in processes; slow, because every pool has to start."""

import os
from pathlib import Path

from dfl.heads.estimators import lda
from dfl.study.run.cells import CellStore
from dfl.study.run.keys import CellKeys
from dfl.study.run.missing import run_missing
from tests.study.study_examples import Dies, Tells, cell, example, opened, pipeline


def test_run_missing__a_process_that_dies_takes_its_own_cell_alone(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    heads = {"lda": [lda()], "tells": [pipeline(Tells())], "dies": [pipeline(Dies())]}
    study = example(tmp_path, conditions=["none"], heads=heads)
    cells = [*(cell(name) for name in heads), cell("lda", train_set="beta")]
    run = run_missing(cells, study, opened(study), jobs=1)
    assert {outcome.cell: outcome.cause for outcome in run.failures} == {
        cells[1]: "RuntimeError: in a process of 1 thread",
        cells[2]: "its process died, most likely for want of memory; give fewer jobs",
    }
    assert os.environ["OMP_NUM_THREADS"] == "5"
    key_of = CellKeys(study, opened(study))
    assert run.keys == {c: key_of(c) for c in (cells[0], cells[3])}
    assert run.fitted == 2
    assert CellStore(study.folder).finished() == set(run.keys.values())

    files = {file: file.stat().st_mtime_ns for file in study.folder.iterdir()}
    again = run_missing(list(run.keys), study, opened(study), jobs=1)
    assert (again.fitted, again.failures, again.keys) == (0, [], run.keys)
    assert {file: file.stat().st_mtime_ns for file in study.folder.iterdir()} == files
