from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from dfl.report.runs.run_dir import run_dir
from tests.report.tiny_run import TinyData, TinyTask, tiny_trainer


@pytest.mark.parametrize("logger", [CSVLogger, TensorBoardLogger])
@pytest.mark.parametrize("named", [{"name": "n"}, {"name": None}, {"name": "n", "version": "v"}])
@pytest.mark.filterwarnings("ignore:.*distutils Version classes:DeprecationWarning")
def test_run_dir__is_where_lightning_puts_checkpoints(tmp_path, logger, named):
    if logger is TensorBoardLogger:
        pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    checkpoints = ModelCheckpoint()
    trainer = tiny_trainer(
        tmp_path,
        logger=logger(tmp_path / "runs", **named),
        enable_checkpointing=True,
        callbacks=[checkpoints],
        num_sanity_val_steps=0,
    )
    trainer.fit(TinyTask(), TinyData())
    assert run_dir(trainer) / "checkpoints" == tmp_path / checkpoints.dirpath


def test_run_dir__without_logger(tmp_path):
    assert run_dir(tiny_trainer(tmp_path)) == tmp_path


def test_run_dir__of_wandb_is_the_run_not_the_folder_of_all_runs(tmp_path):
    wandb = SimpleNamespace(save_dir=str(tmp_path), name="project", version="abc123")
    trainer = SimpleNamespace(loggers=[wandb], default_root_dir="elsewhere")
    assert run_dir(trainer) == tmp_path / "project" / "abc123"
