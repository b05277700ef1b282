from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from tests.conftest import REPOSITORY

CONFIGS = sorted((REPOSITORY / "configs" / "logger").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:.*distutils Version classes:DeprecationWarning")
# Lightning 2.6's own call of jsonargparse: both notes are about how it sets up its parser.
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_logger_config__is_a_value_of_trainer_logger(path, tmp_path, monkeypatch):
    if path.stem == "tensorboard":
        pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    monkeypatch.chdir(tmp_path)
    cli = LightningCLI(
        BoringModel,
        BoringDataModule,
        run=False,
        seed_everything_default=False,
        save_config_callback=None,
        args=[f"--trainer.logger={path}", "--trainer.accelerator=cpu"],
    )
    logger = cli.trainer.logger
    assert type(logger).__name__.lower().startswith(path.stem.split("_")[0])
    assert Path(logger.save_dir) == Path("runs")
    assert list(tmp_path.iterdir()) == []
