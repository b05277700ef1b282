"""The entry as its users meet it: from images to a CSV, and the answer to each mistake."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from dfl import __version__
from dfl.app.dispatch import COMMANDS, LIGHTNING
from dfl.cli import _log_shown, main
from dfl.evaluation import binary_metrics, read_scores
from dfl.features import FeatureStore
from dfl.features.store import FEATURES
from tests.conftest import REPOSITORY
from tests.runs import FEATURE_DATA, FIT, TINY_BACKBONE, image_data, write_features

CONFIGS = REPOSITORY / "configs"
EXTRACT_BACKBONE = [option.replace("--model.", "--") for option in TINY_BACKBONE[1:5]]


@pytest.fixture(scope="module")
def run(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one fit from pixels, its checkpoint at `best.ckpt`."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", *FIT, "--trainer.max_epochs=3", *TINY_BACKBONE, *image_data(image_root)])
    (checkpoint,) = folder.glob("runs/**/*.ckpt")
    shutil.copy(checkpoint, folder / "best.ckpt")
    return folder


def _fails(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl ")]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def _in_the_foreground() -> Iterator[None]:
    """A shell starts what is in the background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_in_the_foreground")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_main__a_signal_ends_it_in_one_line(capsys, monkeypatch, number: signal.Signals) -> None:
    """Whatever a library makes of the interruption, and though the signal comes twice."""

    def interrupted(argv: list[str]) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            if number != signal.SIGINT:
                os.kill(os.getpid(), number)
            raise RuntimeError("DataLoader worker is killed by signal") from None

    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)]
    monkeypatch.setattr("dfl.cli.run", interrupted)
    line = f"ended by {number.name}; the same command goes on where it was\n"
    for rank, said in (("0", f"dfl study: {line}"), ("1", "")):
        monkeypatch.setenv("SLURM_PROCID", rank)
        with pytest.raises(SystemExit) as caught:
            main(["study"])
        assert caught.value.code == 128 + number
        assert capsys.readouterr().err == said
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_help__every_sub_command_is_listed(capsys) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    for name in (*LIGHTNING, *COMMANDS):
        assert f"  {name} " in shown
    assert all(len(line) <= 100 for line in shown.splitlines())


@pytest.mark.parametrize("name", [*COMMANDS, *LIGHTNING])
def test_help__of_each(name: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_help__imports_nothing_heavy() -> None:
    code = "import contextlib, sys\nfrom dfl.cli import main\n"
    for name in (*COMMANDS, *LIGHTNING):
        code += f"with contextlib.suppress(SystemExit): main([{name!r}, '--help'])\n"
    code += "heavy = {'torch', 'lightning', 'sklearn', 'pandas', 'numpy', 'jsonargparse'}\n"
    code += "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True)


@pytest.mark.parametrize("entry", [["train.py"], ["-m", "dfl"]])
def test_version__from_the_shell(entry: list[str]) -> None:
    command = [sys.executable, *entry, "--version"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == f"dfl {__version__}\n"


def test_fit__keeps_config_and_small_checkpoint(run: Path) -> None:
    (config,) = run.glob("runs/**/config.yaml")
    resolved = yaml.safe_load(config.read_text())
    assert resolved["model"]["init_args"]["backbones"]["tiny"]["init_args"]["model"] == "test_vit"
    checkpoint = torch.load(run / "best.ckpt", weights_only=True)
    assert not [key for key in checkpoint["state_dict"] if key.startswith("backbone")]
    assert (run / "best.ckpt").stat().st_size < 100_000


def test_test__writes_scores_that_give_the_logged_metrics(
    run: Path, image_root, monkeypatch
) -> None:
    monkeypatch.chdir(run)
    args = [*FIT, *TINY_BACKBONE, *image_data(image_root), "--ckpt_path=best.ckpt"]
    main(["test", *args, "--trainer.logger.name=test"])
    scores = read_scores(next(run.glob("runs/test/**/scores.csv")))
    logged = pd.read_csv(next(run.glob("runs/test/**/metrics.csv"))).iloc[-1]
    assert set(scores["dataset"]) == {"alpha", "beta"}
    for name, rows in (("", scores), ("alpha/", scores[scores["dataset"] == "alpha"])):
        metrics = binary_metrics(rows["score"], rows["label"])
        for metric in ("accuracy", "ap", "auroc", "eer"):
            assert logged[f"test/{name}{metric}"] == pytest.approx(metrics[metric], abs=1e-6)


def test_fit__resumes_where_it_stopped(run: Path, image_root, monkeypatch) -> None:
    monkeypatch.chdir(run)
    args = [*TINY_BACKBONE, *image_data(image_root), "--trainer.logger.name=resumed"]
    main(["fit", *FIT, "--trainer.max_epochs=5", *args, "--ckpt_path=best.ckpt"])
    (last,) = run.glob("runs/resumed/**/*.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    before = torch.load(run / "best.ckpt", weights_only=True)
    assert (before["epoch"], checkpoint["epoch"]) == (2, 4)
    assert (
        checkpoint["state_dict"]["model.normalise.count"]
        == before["state_dict"]["model.normalise.count"]
    )


def test_detect__random_weights_cannot_be_built_again(
    run: Path, image_root, tmp_path, capsys
) -> None:
    out = tmp_path / "found.csv"
    images = image_root / "alpha"
    # random weights cannot be built again from their description: this must be noticed
    args = ["detect", f"--detector={run / 'best.ckpt'}", f"--images={images}", f"--out={out}"]
    assert "random weights (pretrained: false), which no other run has; train it" in _fails(
        args, capsys
    )
    assert not out.exists()


def test_chain__extract_heads_score_evaluate_detect(
    image_root: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "tiny.safetensors")
    backbone = [
        *EXTRACT_BACKBONE[:2],
        "--backbones.tiny.weights=tiny.safetensors",
        EXTRACT_BACKBONE[3],
    ]
    extract = ["extract", *backbone, *image_data(image_root), "--out=features"]
    main([*extract, "--accelerator=cpu", "--devices=1"])
    assert len(FeatureStore.open(tmp_path / "features").manifest) == 48
    assert yaml.safe_load((tmp_path / "features" / "config.yaml").read_text())["out"] == "features"

    factories = {"lda": "lda", "svm": "rbf_svm"}
    head = json.dumps(
        {k: {"class_path": f"dfl.heads.estimators.{v}"} for k, v in factories.items()}
    )
    main(["heads", "--features=features", "--out=heads", f"--heads={head}"])
    main(["score", "--features=features", "--head=heads/lda", "--out=scored.csv"])
    main(["evaluate", "--scores=[heads/lda/scores.csv, heads/svm/scores.csv]", "--out=report"])
    assert (tmp_path / "report" / "metrics.csv").is_file()

    main(
        [
            "detect",
            "--detector=heads/lda",
            f"--images={image_root / 'alpha'}",
            "--out=found.csv",
            "--num_workers=0",
            "--accelerator=cpu",
            "--devices=1",
        ]
    )
    found = pd.read_csv("found.csv")
    assert list(found.columns) == ["path", "score", "prob", "verdict"]
    scores = read_scores(tmp_path / "heads" / "lda" / "scores.csv")
    alpha = scores[scores["dataset"] == "alpha"].sort_values("path")
    np.testing.assert_allclose(
        found.sort_values("path")["score"], alpha["score"], rtol=1e-4, atol=1e-4
    )

    probe = ["--model=dfl.heads.LinearProbeTask", *TINY_BACKBONE[5:]]
    main(["fit", *FIT, *probe, *FEATURE_DATA, "--data.features=features"])
    (checkpoint,) = tmp_path.glob("runs/**/*.ckpt")
    main(
        [
            "detect",
            f"--detector={checkpoint}",
            f"--images={image_root / 'alpha'}",
            "--out=probe.csv",
            "--num_workers=0",
            "--accelerator=cpu",
            "--devices=1",
        ]
    )
    assert len(pd.read_csv("probe.csv")) == 24

    bottleneck = ["--model=dfl.heads.BottleneckTask", "--model.code_dim=4", *TINY_BACKBONE[5:]]
    main(
        [
            "fit",
            *FIT,
            *bottleneck,
            *FEATURE_DATA,
            "--data.features=features",
            "--trainer.logger.name=ae",
        ]
    )
    (checkpoint,) = tmp_path.glob("runs/ae/**/*.ckpt")
    main(["encode", "--features=features", f"--checkpoint={checkpoint}", "--out=codes"])
    assert FeatureStore.open(tmp_path / "codes").matrix().shape == (48, 4)
    main(
        [
            "heads",
            "--features=features",
            "--out=behind",
            f"--heads={head}",
            "--reduction=dfl.heads.estimators.bottleneck",
            f"--reduction.checkpoint={checkpoint}",
        ]
    )
    main(
        [
            "detect",
            "--detector=behind/lda",
            f"--images={image_root / 'alpha'}",
            "--out=coded.csv",
            "--num_workers=0",
            "--accelerator=cpu",
            "--devices=1",
        ]
    )
    assert len(pd.read_csv("coded.csv")) == 24


# Mistakes: each ends in one line that says what to do


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["detonate"], "no sub-command 'detonate'; there are: fit, validate"),
        (["extract", "--nothing=1"], "nothing"),
        (["extract", "--out=x"], "data"),
        (["extract", "--config=missing.yaml"], "missing.yaml"),
        (
            ["fit", *TINY_BACKBONE, *FEATURE_DATA, "--trainer.max_epochs=many"],
            "max_epochs",
        ),
        (["fit", "--config=missing.yaml"], "missing.yaml"),
        (["test", *TINY_BACKBONE, *FEATURE_DATA, "--data.features=x"], "needs the checkpoint"),
        (
            ["test", *TINY_BACKBONE, *FEATURE_DATA, "--data.features=x", "--ckpt_path=no.ckpt"],
            "no.ckpt: no such checkpoint",
        ),
        (
            ["fit", *FIT, *TINY_BACKBONE, *FEATURE_DATA, "--data.features=nowhere"],
            "nowhere: no such feat",
        ),
        (["detect", "--detector=none", "--images=x", "--out=y.csv"], "none: no such"),
        (["evaluate", "--scores=none.csv"], "none.csv"),
        (
            ["heads", "--features=none", "--out=x", f"--config={CONFIGS / 'head/lda.yaml'}"],
            "none: no such feature folder",
        ),
    ],
)
def test_mistake__one_line(args: list[str], message: str, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in _fails(args, capsys)
    assert not list(tmp_path.glob("*.csv"))


def test_mistake__is_left_to_the_first_process_which_ends_the_others(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    """Others say what they alone have met, later, and where."""
    waited: list[float] = []
    monkeypatch.setattr("dfl.cli.time.sleep", waited.append)
    args = ["score", "--head=missing", "--features=missing", f"--out={tmp_path / 'a.csv'}"]
    assert "error in process" not in _fails(args, capsys)
    assert waited == []
    monkeypatch.setenv("RANK", "3")
    assert "dfl score: error in process 3: " in _fails(args, capsys)
    assert waited == [4.0]


def test_warnings__of_pillow_do_not_reach_the_terminal(monkeypatch) -> None:
    """Of ours and of torch they do."""

    def warn(argv: list[str]) -> None:
        for module in ("PIL.TiffImagePlugin", "dfl.app.help"):
            warnings.warn_explicit("odd", UserWarning, "file.py", 1, module=module, registry={})

    monkeypatch.setattr("dfl.cli.run", warn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        main(["extract"])
    assert len(caught) == 1


@pytest.mark.parametrize(("rank", "shown"), [("0", "careful\n"), ("1", "")])
def test_log__of_several_processes_the_first_one_shows_it(
    rank: str, shown: str, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(logging.getLogger("dfl"), "propagate", False)  # to pytest's own handlers
    monkeypatch.setenv("RANK", rank)
    with _log_shown():
        logging.getLogger("dfl.room").warning("careful")
    assert capsys.readouterr().err == shown


def test_mistake__typo_in_a_config_is_named(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((REPOSITORY / "configs/model/bottleneck.yaml").read_text())
    config["init_args"]["code_dimension"] = 3
    Path("typo.yaml").write_text(yaml.safe_dump(config))
    assert "code_dimension" in _fails(
        ["fit", "--model=typo.yaml", *FEATURE_DATA, "--data.features=x"], capsys
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-40]), "000.png"),
        (lambda file: file.write_bytes(b""), "000.png"),
        (lambda file: file.write_text("this is no picture"), "000.png"),
        (lambda file: shutil.copy(file, file.parents[1] / "0_real" / "copy.png"), "copy.png"),
    ],
    ids=["truncated", "empty", "text", "on both sides"],
)
def test_mistake__bad_image(
    image_copy: Path, damage, message: str, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage(image_copy / "alpha" / "1_fake" / "000.png")
    extract = ["extract", *EXTRACT_BACKBONE, *image_data(image_copy), "--out=features"]
    assert message in _fails([*extract, "--accelerator=cpu", "--devices=1"], capsys)
    assert not Path("features").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [("b.png,1,a,g,test,", "b.png"), ("a.png,2,a,g,test,", "label must be 0")],
    ids=["missing path", "label of 2"],
)
def test_mistake__bad_manifest(row: str, message: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("a.png")
    Path("m.csv").write_text(f"path,label,dataset,generator,split,group\n{row}\n")
    data = [
        "--data=dfl.data.ImageDataModule",
        "--data.source=dfl.data.ManifestFile",
        "--data.source.path=m.csv",
        "--data.crop=dfl.data.Resize",
        "--data.crop.size=32",
    ]
    assert message in _fails(
        ["extract", *EXTRACT_BACKBONE, *data, "--out=f", "--accelerator=cpu"], capsys
    )


def test_mistake__wandb_without_a_key(tmp_path: Path, capsys, monkeypatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "features")
    args = ["fit", *FIT[:4], "--model=dfl.heads.LinearProbeTask", *TINY_BACKBONE[5:], *FEATURE_DATA]
    args += ["--data.features=features", f"--trainer.logger={CONFIGS / 'logger' / 'wandb.yaml'}"]
    line = _fails(args, capsys)
    assert "log in (wandb login, or WANDB_API_KEY)" in line
    assert "WANDB_MODE=offline" in line
    assert "configs/logger/wandb_offline.yaml" in line


def test_mistake__checkpoint_of_another_backbone(
    run: Path, image_root, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(run)
    other = [option.replace("test_vit", "test_vit2") for option in TINY_BACKBONE]
    args = [*FIT, *other, *image_data(image_root), "--ckpt_path=best.ckpt"]
    assert "tiny.pooled" in _fails(["test", *args], capsys)


def test_mistake__features_of_another_backbone(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "a")
    write_features(tmp_path / "b")
    document = json.loads((tmp_path / "b" / "features.json").read_text())
    document["layers"][0]["fingerprint"] = "ef" * 32
    FEATURES.describe(tmp_path / "b", document)
    probe = ["--model=dfl.heads.LinearProbeTask", *TINY_BACKBONE[5:], *FEATURE_DATA]
    main(["fit", *FIT, *probe, "--data.features=a"])
    (checkpoint,) = tmp_path.glob("runs/**/*.ckpt")
    message = _fails(
        ["test", *FIT, *probe, "--data.features=b", f"--ckpt_path={checkpoint}"], capsys
    )
    assert "abababab" in message
    assert "efefefef" in message


def test_mistake__damaged_checkpoint(
    run: Path, image_root, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("half.ckpt").write_bytes((run / "best.ckpt").read_bytes()[:1000])
    args = [*FIT, *TINY_BACKBONE, *image_data(image_root), "--ckpt_path=half.ckpt"]
    assert "damaged" in _fails(["test", *args], capsys)


def test_mistake__precision_that_rounds_the_head(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "features")
    args = ["fit", *FIT, "--model=dfl.heads.LinearProbeTask", *TINY_BACKBONE[5:], *FEATURE_DATA]
    args += ["--data.features=features", "--trainer.precision=bf16-true"]
    assert "take bf16-mixed" in _fails(args, capsys)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trainer.strategy=foo", "strategy"),
        ("--model.optimizer.lr=-1", "learning rate"),
        ("--trainer.logger=lightning.pytorch.loggers.TensorBoardLogger", "save_dir"),
    ],
)
def test_mistake__value_that_lightning_or_torch_refuses(
    option: str, message: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "features")
    args = ["fit", *FIT, "--model=dfl.heads.LinearProbeTask", *TINY_BACKBONE[5:], *FEATURE_DATA]
    if "TensorBoard" in option:
        args = [arg for arg in args if "logger" not in arg]
    assert message in _fails([*args, "--data.features=features", option], capsys)


def test_fit__without_a_bar_and_with_a_plateau_scheduler(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "features")
    args = ["fit", *FIT, "--model=dfl.heads.LinearProbeTask", *TINY_BACKBONE[5:], *FEATURE_DATA]
    plateau = ["--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau"]
    plateau += ["--model.lr_scheduler.monitor=val/loss"]
    args += ["--data.features=features", "--trainer.enable_progress_bar=false", *plateau]
    args += ["--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint"]
    args += ["--trainer.callbacks.monitor=val/loss"]
    main(args)
    shown = capsys.readouterr()
    assert "best checkpoint: runs/" in shown.out
    assert "images/s" not in shown.err

    # a fit that goes on has a folder of its own, and no say over what was better before
    (file,) = Path("runs").rglob("*.ckpt")
    checkpoint = torch.load(file, weights_only=True)
    (state,) = (s for n, s in checkpoint["callbacks"].items() if n.startswith("ModelCheckpoint"))
    state["best_model_score"] = torch.tensor(0.001)
    torch.save(checkpoint, file)
    main([*args, f"--ckpt_path={file}", "--trainer.max_epochs=2"])
    out = capsys.readouterr().out
    assert re.search(r"has a better one: .*version_0.*\.ckpt \(0\.0010\)", out)


def test_detect__does_not_replace_a_file_unasked(tmp_path: Path, capsys) -> None:
    (tmp_path / "notes.csv").write_text("mine")
    args = ["detect", "--detector=x", f"--images={tmp_path}", f"--out={tmp_path / 'notes.csv'}"]
    assert "is there already" in _fails(args, capsys)
    assert (tmp_path / "notes.csv").read_text() == "mine"


def test_test__mixed_precision_keeps_scores_in_float32(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "features")
    args = [*FIT, "--model=dfl.heads.LinearProbeTask", *TINY_BACKBONE[5:], *FEATURE_DATA]
    args += ["--data.features=features", "--trainer.precision=bf16-mixed"]
    main(["fit", *args])
    (checkpoint,) = tmp_path.glob("runs/**/*.ckpt")
    main(["test", *args, f"--ckpt_path={checkpoint}"])
    score = torch.tensor(read_scores(next(tmp_path.glob("runs/**/scores.csv")))["score"].to_numpy())
    assert (score.bfloat16().double() != score).float().mean() > 0.9
