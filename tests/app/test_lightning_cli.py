import contextlib
import logging
from pathlib import Path

import pytest
import torch
import wandb
import yaml
from lightning.pytorch import Trainer

from dfl.app.lightning_cli import run_trainer
from dfl.errors import CheckpointError, ConfigError
from dfl.report.runs.results_printer import ResultsPrinter
from tests.conftest import REPOSITORY
from tests.report.wandb_files import OfflineRun
from tests.runs import FEATURE_DATA, FIT, image_data, job_of_slurm, write_features

PROBE = [
    "--model=LinearProbeTask",
    "--model.optimizer=torch.optim.AdamW",
    "--model.optimizer.lr=0.01",
    "--trainer.enable_model_summary=false",
    *FEATURE_DATA,
    "--data.features=features",
]
UNLOGGED = [*FIT[:4], "--trainer.logger=false", "--trainer.enable_checkpointing=false"]


TUNED = ["--model=FineTuneTask", "--model.model=test_resnet", "--model.pretrained=false"]
TUNED += ["--model.input_size=32", "--model.optimizer=torch.optim.AdamW"]


@pytest.fixture(scope="module")
def tuned(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was trained for a step in bfloat16."""
    folder = tmp_path_factory.mktemp("tuned")
    few = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0"]
    with contextlib.chdir(folder):
        run_trainer(
            ["fit", *FIT, *few, "--trainer.precision=bf16-mixed", *TUNED, *image_data(image_root)]
        )
    (kept,) = folder.rglob("*.ckpt")
    return kept


@pytest.fixture(autouse=True)
def _features(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_features(Path("features"))


def test_fit__resolved_config_repeats_the_run(tmp_path: Path) -> None:
    run_trainer(["fit", *FIT, *PROBE])
    (config,) = tmp_path.glob("runs/**/config.yaml")
    run_trainer(["fit", f"--config={config}", "--trainer.logger.name=again"])
    (again,) = tmp_path.glob("runs/again/**/config.yaml")
    first, second = (yaml.safe_load(file.read_text()) for file in (config, again))
    assert second["trainer"]["logger"]["init_args"].pop("name") == "again"
    first["trainer"]["logger"]["init_args"].pop("name")
    assert first == second
    assert first["data"]["init_args"]["batch_size"] == 32


def test_fit__the_config_given_is_not_replaced() -> None:
    mine = "seed_everything: 5  # mine\n"
    Path("config.yaml").write_text(mine)
    run_trainer(["fit", "--config=config.yaml", *UNLOGGED, *PROBE])
    assert Path("config.yaml").read_text() == mine


def test_fit__trial_writes_nothing(tmp_path: Path) -> None:
    run_trainer(["fit", *FIT, *PROBE, "--trainer.fast_dev_run=true"])
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


def test_fit__wandb_gets_the_config(tmp_path: Path, monkeypatch) -> None:
    for kind in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / "home"))
    logger = ["--trainer.logger=WandbLogger", "--trainer.logger.save_dir=runs"]
    logger += ["--trainer.logger.project=p", "--trainer.logger.offline=true"]
    try:
        run_trainer(["fit", *FIT[:4], *logger, *PROBE, "--trainer.enable_checkpointing=false"])
    finally:
        wandb.finish()
        wandb.teardown()  # waits until the files are complete
    config = OfflineRun(tmp_path / "runs").config["config"]
    assert config["model"]["class_path"] == "dfl.heads.LinearProbeTask"
    assert config["data"]["init_args"]["features"] == "features"
    (resolved,) = tmp_path.glob("runs/p/*/config.yaml")
    assert yaml.safe_load(resolved.read_text())["seed_everything"] == config["seed_everything"]


def test_fit__in_a_job_goes_on_from_its_own_interruption_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in job_of_slurm().items():
        monkeypatch.setenv(name, value)
    made: list[Path] = []

    def interrupted(self: object, trainer: Trainer, module: object) -> None:
        made.append(Path(trainer.default_root_dir))
        trainer.save_checkpoint(made[0] / "hpc_ckpt_1.ckpt")

    with monkeypatch.context() as during:
        during.setattr(ResultsPrinter, "on_fit_end", interrupted, raising=False)
        run_trainer(["fit", *UNLOGGED, *PROBE])
    (hpc,) = tmp_path.glob("runs/requeued/*/hpc_ckpt_1.ckpt")
    assert hpc.parent == made[0].absolute()
    assert hpc.parent.name.startswith("77-")

    run_trainer(["fit", *UNLOGGED, *PROBE, "--seed_everything=1"])  # another run of the same job
    run_trainer(["fit", *UNLOGGED, *PROBE, f"--trainer.default_root_dir={tmp_path}"])
    assert "hpc_ckpt" not in caplog.text
    run_trainer(["fit", *UNLOGGED, *PROBE])
    restored = f"Restored all states from the checkpoint at {hpc.relative_to(tmp_path)}"
    assert restored in caplog.messages


def test_fit__layers_of_batch_norm_are_not_replaced() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.sync_batchnorm: would replace layers"):
        run_trainer(["fit", *UNLOGGED, *PROBE, "--trainer.sync_batchnorm=true"])


@pytest.mark.parametrize(
    ("options", "unit", "taken", "said"),
    [
        ([], "AMX", "bf16-mixed", "precision: bf16-mixed, in which the detector was trained"),
        ([], None, "32-true", "precision: 32-true, since no fast arithmetic is known of this cpu"),
        (["--trainer.precision=32-true"], "AMX", "32-true", ""),
    ],
)
def test_test__from_pixels_in_the_precision_of_the_training(
    tuned: Path, image_root: Path, options, unit, taken: str, said: str, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("dfl.backbones.precision._bf16_of_cpu", lambda: unit)
    seen = []
    watch = lambda self, trainer, module: seen.append(trainer.precision)  # noqa: E731
    monkeypatch.setattr(ResultsPrinter, "on_test_end", watch)
    caplog.set_level("INFO", "dfl.backbones.precision")
    args = [*UNLOGGED, *TUNED, *image_data(image_root), f"--ckpt_path={tuned}"]
    run_trainer(["test", *args, *options])
    assert seen == [taken]
    assert caplog.text.count("precision: ") == bool(said)
    assert said in caplog.text


def test_test__on_features_in_that_of_the_trainer(monkeypatch, caplog) -> None:
    monkeypatch.setattr("dfl.backbones.precision._bf16_of_cpu", lambda: "AMX")
    run_trainer(["fit", *FIT, *PROBE])
    (kept,) = Path("runs").rglob("*.ckpt")
    content = torch.load(kept, weights_only=True)
    content["dfl"]["execution"] = {"precision": "bf16-mixed", "engine": "eager"}
    torch.save(content, kept)
    caplog.set_level("INFO", "dfl.backbones.precision")
    run_trainer(["test", *UNLOGGED, *PROBE, f"--ckpt_path={kept}"])
    assert "precision" not in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best", "best: no run in lightning_logs has kept a checkpoint; give --ckpt_path FILE"),
        ("last", "last: no run in lightning_logs has kept a checkpoint"),
        ("hpc", "hpc: no such checkpoint"),
    ],
)
def test_test__a_checkpoint_must_be_there(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        run_trainer(["test", *UNLOGGED, *PROBE, f"--ckpt_path={name}"])


def test_words__stand_for_checkpoints_of_the_newest_run(tmp_path: Path, caplog) -> None:
    config = str(REPOSITORY / "configs" / "trainer" / "default.yaml")
    runs = ["--trainer", config, *FIT[:3], *PROBE]
    run_trainer(["fit", *runs])
    kept = Path("runs/dfl/version_0/checkpoints")
    with caplog.at_level(logging.INFO, logger="dfl"):
        for word in ("best", "last"):
            run_trainer(["test", *runs, f"--ckpt_path={word}"])
            assert f"{word} checkpoint of the newest run: {kept / word}.ckpt" in caplog.messages
        run_trainer(["fit", *runs, "--trainer.max_epochs=2", "--ckpt_path=last"])
    last = torch.load("runs/dfl/version_3/checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    assert not (tmp_path / "runs/dfl/version_3/checkpoints/last-v1.ckpt").exists()


def test_fit__last_begins_where_there_is_none(caplog) -> None:
    with caplog.at_level(logging.INFO, logger="dfl"):
        run_trainer(["fit", *UNLOGGED, *PROBE, "--ckpt_path=last"])
    assert "no run has kept a checkpoint yet, so this one begins anew" in caplog.messages


def test_wandb__without_a_key_nothing_is_read(tmp_path: Path, monkeypatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "none"))
    monkeypatch.setattr("dfl.features.datamodule.FeatureDataModule.setup", None)
    logger = ["--trainer.logger=WandbLogger", "--trainer.logger.save_dir=runs"]
    with pytest.raises(wandb.errors.UsageError, match=r"(?i)api.key"):
        run_trainer(["fit", *FIT[:4], *logger, *PROBE])
    assert not Path("runs").exists()


@pytest.mark.parametrize("what", ["validate", "test", "predict"])
def test_evaluation__needs_a_checkpoint(what: str) -> None:
    with pytest.raises(CheckpointError, match=f"{what} needs the checkpoint of a run: --ckpt_path"):
        run_trainer([what, *UNLOGGED, *PROBE])
