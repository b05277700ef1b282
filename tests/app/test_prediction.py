import pytest
from lightning.pytorch.callbacks import BasePredictionWriter

from dfl.app.prediction import run_prediction
from tests.report.tiny_run import TinyData, TinyTask
from tests.runs import job_of_slurm


class Keeper(BasePredictionWriter):
    def __init__(self, fail: bool = False) -> None:
        super().__init__(write_interval="batch")
        self.kept, self.fail = [], fail

    def write_on_batch_end(self, trainer, pl_module, prediction, *rest) -> None:
        if self.fail:
            raise OSError("disk full")
        self.kept += prediction.tolist()


def test_run_prediction__all_images_to_the_writer_and_no_files(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    writer = Keeper()
    trainer = run_prediction(TinyTask(), TinyData(), writer=writer, accelerator="cpu", devices=1)
    assert writer.kept == [0, 1] * 4
    assert trainer.is_global_zero
    assert list(tmp_path.iterdir()) == []


def test_run_prediction__in_a_job_takes_no_other_weights(tmp_path, monkeypatch) -> None:
    """Lightning would load them from the working directory, and die of these."""
    monkeypatch.chdir(tmp_path)
    for name, value in job_of_slurm().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "hpc_ckpt_1.ckpt").write_text("of an interrupted fit")
    writer = Keeper()
    run_prediction(TinyTask(), TinyData(), writer=writer, accelerator="cpu", devices=1)
    assert writer.kept == [0, 1] * 4


def test_run_prediction__an_error_of_the_writer_is_raised(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        run_prediction(TinyTask(), TinyData(), writer=Keeper(True), accelerator="cpu", devices=1)
