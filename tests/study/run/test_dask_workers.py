"""The workers of a Dask cluster do what processes do, and survive each other."""

import os
import time
from pathlib import Path

import pytest

from dfl.errors import StudyError
from dfl.heads.estimators import lda
from dfl.study.run import workers as workers_module
from dfl.study.run.missing import run_missing
from dfl.study.run.workers import DIED, DaskWorkers
from tests.study.dask_cluster import cluster
from tests.study.study_examples import Dies, cell, example, pipeline

pytest.importorskip("distributed", reason="needs the extra [dask]")


def wait(seconds: float, item: int) -> str:
    time.sleep(seconds)
    return os.environ["OMP_NUM_THREADS"]


@pytest.mark.slow
def test_dask_workers__what_dies(tmp_path: Path, monkeypatch) -> None:
    """A cell that kills its worker is one failed cell; other versions, or no scheduler, say so."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    heads = {"lda": [lda()], "dies": [pipeline(Dies())]}
    study = example(tmp_path, conditions=["none"], heads=heads)
    cells = [cell("dies"), cell("lda", train_set="beta")]
    with (
        cluster(tmp_path, restarts=True, failures=0) as there,
        DaskWorkers(there.address, timeout_s=10) as workers,
    ):
        run = run_missing(cells, study, workers)
        assert {outcome.cell: outcome.cause for outcome in run.failures} == {cells[0]: DIED}
        assert set(run.keys) == {cells[1]}

        assert dict(workers.run(wait, [0], 0.0, folder=tmp_path)) == {0: "1"}
        assert os.environ["OMP_NUM_THREADS"] == "2"
        with monkeypatch.context() as patch:
            patch.setattr(workers_module, "_versions", lambda: "dfl 0")
            with pytest.raises(StudyError, match=r"a worker has dfl \d.*, the study dfl 0; start"):
                list(workers.run(wait, [0], 0.0, folder=tmp_path))

        running = workers.run(wait, range(9), 0.2, folder=tmp_path)
        next(running)
        there.scheduler.kill()
        with pytest.raises(StudyError, match="the scheduler is gone; what is finished is kept"):
            list(running)


def test_dask_workers__no_scheduler_there() -> None:
    with pytest.raises(StudyError, match=r"scheduler tcp://127.0.0.1:9: no Dask scheduler answers"):
        DaskWorkers("tcp://127.0.0.1:9", timeout_s=1)
