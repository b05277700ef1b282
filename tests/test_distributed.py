"""Two and three processes on the CPU (gloo) give what one process gives."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from dfl.app import extraction
from dfl.backbones import runner
from dfl.evaluation import read_scores
from dfl.features import ExtractionDataModule, FeatureStore, shards
from dfl.features.processes import check_visible
from tests.conftest import REPOSITORY
from tests.processes import Prepare, run_ranks
from tests.runs import FIT, image_data, tiny_resnet, tuned_resnet

OPTIMIZER = ["--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=0.01"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def images(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose numbers of images divide by neither two nor three."""
    root = tmp_path_factory.mktemp("odd")
    for number, file in enumerate(sorted(image_root.rglob("*.png"))):
        if number != 5:
            target = root / file.relative_to(image_root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), root / "tiny.safetensors")
    return root


def _backbone(prefix: str, images: Path) -> list[str]:
    return tiny_resnet(prefix, images / "tiny.safetensors")


def _run(args: list[str], processes: int, *, prepare: Prepare | None = None) -> None:
    prefix = "" if args[0] == "extract" else "trainer."
    many = [f"--{prefix}accelerator=cpu", f"--{prefix}devices={processes}"]
    if processes > 1:
        many += [f"--{prefix}strategy=ddp"]
    for ended in run_ranks([*args, *many], processes, prepare=prepare):
        assert ended.code == 0, ended.said[-3000:]


def _few_rows_a_shard() -> None:
    shards._SHARD_ROWS = 4  # two batches: twelve shards


def _extract_args(images: Path, out: str) -> list[str]:
    return ["extract", *_backbone("", images), *image_data(images), f"--out={out}"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_extract__equals_one_process(images: Path, tmp_path: Path, processes: int) -> None:
    """Bytes and all, with shards that do not divide by the processes."""
    few = ["--data.batch_size=2", "--data.num_workers=1"]
    for name, count in (("one", 1), ("many", processes)):
        _run([*_extract_args(images, name), *few], count, prepare=_few_rows_a_shard)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "one", "splits"]
    one, many = (FeatureStore.open(tmp_path / name) for name in ("one", "many"))
    for name in ("tiny.pooled.npy", "manifest.csv", "features.json"):
        assert (many.path / name).read_bytes() == (one.path / name).read_bytes()
    pd.testing.assert_frame_equal(one.manifest.frame, many.manifest.frame)
    assert len(many.manifest) == 47
    assert not many.manifest.frame["path"].duplicated().any()
    np.testing.assert_array_equal(one.matrix(), many.matrix())
    assert one.metadata["fingerprint"] == many.metadata["fingerprint"]


@pytest.mark.slow
def test_extract__as_a_user_launches_it(images: Path, tmp_path: Path) -> None:
    """With Lightning's own launcher; all other tests start processes as torchrun does."""
    devices = ["--accelerator=cpu", "--devices=2", "--strategy=ddp"]
    command = [str(REPOSITORY / "train.py"), *_extract_args(images, "f"), *devices]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    paths = FeatureStore.open(tmp_path / "f").manifest.frame["path"]
    assert (len(paths), paths.nunique()) == (47, 47)


@pytest.mark.slow
def test_extract__no_process_outlives_one_that_failed(images: Path, tmp_path: Path) -> None:
    """The first process stops at a broken image; the other one waits in a join that takes long."""
    broken = tmp_path / "broken"
    shutil.copytree(images, broken)
    (broken / "alpha/0_real/000.png").write_text("text")
    out = tmp_path / "of-a-run-that-fails"
    devices = ["--accelerator=cpu", "--devices=2", "--strategy=ddp"]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *_extract_args(broken, str(out)), *devices],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode != 0
    assert "000.png" in done.stderr
    deadline = time.monotonic() + 15
    while (left := _commands_with(out.name)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def _commands_with(text: str) -> list[str]:
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [command for command in commands if text in command]


def _others_have_gone() -> None:
    """Let the first process fit cells only when the second one has ended."""
    Path(f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    module = import_module("dfl.commands.study")
    run_missing = module.run_missing

    def when_alone(*args: object) -> object:
        second = Path("/proc", Path("1.pid").read_text())
        deadline = time.monotonic() + 30
        while second.exists():
            assert time.monotonic() < deadline, "the second process waits for the cells"
            time.sleep(0.05)
        return run_missing(*args)

    module.run_missing = when_alone


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_study__fine_tunes_a_baseline_when_the_others_have_gone(
    images: Path, tmp_path: Path, processes: int
) -> None:
    """The features are made together; then nothing may be gathered from processes that ended."""
    config = {
        "heads": {"lda": [{"class_path": "dfl.heads.estimators.lda"}]},
        "train_on": ["combined"],
        "baselines": {"tuned": tuned_resnet(images / "tiny.safetensors")},
        "finetuning": {"max_epochs": 1},
        "replicates": 100,
        "jobs": 1,
    }
    Path("study.yaml").write_text(yaml.safe_dump(config))
    args = ["study", "--config=study.yaml", *_backbone("", images), *image_data(images)]
    many = ["--accelerator=cpu", f"--devices={processes}", "--strategy=ddp"]
    first, *others = run_ranks([*args, "--out=study", *many], processes, prepare=_others_have_gone)
    assert {first.code, *(other.code for other in others)} == {0}, first.said[-2000:]
    assert "networks to fine-tune: 1" in first.said
    assert "failed" not in first.said
    for other in others:  # the plan, too, is the first one's to print
        assert [line for line in other.said.splitlines() if "GLOBAL_RANK: " not in line] == []
    results = pd.read_csv("study/results.csv")
    assert set(results["head"]) == {"lda", "end to end"}


def _join_slowly() -> None:
    join, run = extraction.join_all, extraction.run_prediction

    def slow_join(images: ExtractionDataModule) -> None:
        deadline = time.monotonic() + 20
        while not Path("left-1").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        join(images)

    def noted_run(*args: object, **settings: object) -> pl.Trainer:
        trainer = run(*args, **settings)
        Path(f"left-{trainer.global_rank}").write_text(f"{Path('slow').exists()}")
        return trainer

    extraction.join_all, extraction.run_prediction = slow_join, noted_run


@pytest.mark.slow
def test_extract__others_do_not_wait_for_the_join(images: Path, tmp_path: Path) -> None:
    _run(_extract_args(images, "slow"), 2, prepare=_join_slowly)
    assert Path("left-1").read_text() == "False"
    assert len(FeatureStore.open(tmp_path / "slow").manifest) == 47


def _other_precision() -> None:
    if os.environ["RANK"] == "1":
        settle = runner.settle_precision
        runner.settle_precision = lambda asked, device: settle("bf16-true", device)


def _other_folder() -> None:
    if os.environ["RANK"] == "1":
        check_visible.__kwdefaults__["patience_s"] = 0.0
        shards.ExtractionPlan.folder = property(lambda self: Path("of this machine"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_other_precision, "differ in the precision or engine"),
        (_other_folder, "OUT has to be on a file system that all machines see"),
    ],
)
def test_extract__process_that_sees_something_else_is_an_error(
    images: Path, tmp_path: Path, prepare: Prepare, message: str
) -> None:
    many = ["--accelerator=cpu", "--devices=2", "--strategy=ddp"]
    ended = run_ranks([*_extract_args(images, "f"), *many], 2, prepare=prepare)
    said = "\n".join(each.said for each in ended)
    assert any(each.code for each in ended)
    assert message in said
    assert "process 1 on " in said
    assert not (tmp_path / "f").exists()
    assert not list(tmp_path.glob(".f.*/shard-*"))


@pytest.mark.slow
def test_fit__reports_what_one_process_computes(images: Path, tmp_path: Path) -> None:
    model = ["--model=dfl.heads.LinearProbeTask", *_backbone("model.", images), *OPTIMIZER]
    data = [*image_data(images), "--data.batch_size=3"]
    args = [*FIT, *model, *data]
    fit = [
        "--trainer.max_epochs=2",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.logger.name=two",
    ]
    _run(["fit", *args, *fit], 2)
    (checkpoint,) = tmp_path.glob("runs/two/**/*.ckpt")
    for name, processes in (("one", 1), ("both", 2)):
        ckpt = [f"--ckpt_path={checkpoint}", f"--trainer.logger.name={name}"]
        _run(["validate", *args, *ckpt], processes)
        _run(["test", *args, *ckpt], processes)

    fitted = pd.read_csv(next(tmp_path.glob("runs/two/**/metrics.csv"))).filter(like="val/")
    validated = pd.read_csv(tmp_path / "runs/one/version_0/metrics.csv").filter(like="val/")
    assert {"val/loss", "val/auroc", "val/alpha/ap"} <= set(validated.columns)
    last = fitted.dropna().iloc[-1]
    for metric in validated.columns:
        assert validated[metric].iloc[-1] == pytest.approx(last[metric], abs=1e-5), metric

    one, both = (read_scores(tmp_path / f"runs/{n}/version_1/scores.csv") for n in ("one", "both"))
    assert one["path"].tolist() == both["path"].tolist()
    np.testing.assert_allclose(one["score"], both["score"], atol=1e-5)


@pytest.mark.slow
def test_fit__fine_tuning_scores_as_its_checkpoint_does(images: Path, tmp_path: Path) -> None:
    """Each process trains BatchNorm on its own images; those of the first are stored."""
    model = ["--model=dfl.heads.FineTuneTask", "--model.model=test_resnet", "--model.input_size=32"]
    weights = [f"--model.weights={images / 'tiny.safetensors'}", *OPTIMIZER]
    args = [*FIT, *model, *weights, *image_data(images), "--data.batch_size=6"]
    few = ["--trainer.num_sanity_val_steps=0", "--trainer.logger.name=two"]
    _run(["fit", *args, *few], 2)
    (checkpoint,) = tmp_path.glob("runs/two/**/*.ckpt")
    ckpt = [f"--ckpt_path={checkpoint}", "--trainer.logger.name=one"]
    _run(["validate", *args, *ckpt], 1)
    fitted = pd.read_csv(next(tmp_path.glob("runs/two/**/metrics.csv")))["val/loss"].dropna()
    validated = pd.read_csv(next(tmp_path.glob("runs/one/**/metrics.csv")))["val/loss"]
    assert validated.iloc[-1] == pytest.approx(fitted.iloc[-1], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["layernorm", "lora"])
def test_fit__tuning_is_that_of_one_process(images: Path, tmp_path: Path, trainable: str) -> None:
    """The terms of the loss are of all images of a step, whichever process has them."""
    if trainable == "lora":
        pytest.importorskip("peft", reason="needs the extra [lora]")
    weights, name = tmp_path / "vit.safetensors", "--model.backbones.tiny"
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), weights)
    backbone = [f"{name}=dfl.backbones.TimmBackbone", f"{name}.model=test_vit"]
    backbone += [f"{name}.weights={weights}", f"{name}.input_size=32"]
    backbone += [f"{name}.layers=[block2.cls]", f"--model.trainable={trainable}"]
    loss = ["--model.alignment=0.1", "--model.uniformity=0.5"]
    sgd = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.5"]
    # no further one, which a repeated image would fill up
    few = ["--trainer.limit_train_batches=3", "--trainer.num_sanity_val_steps=0"]
    args = [*FIT, "--model=dfl.heads.TuneTask", *backbone, *loss, *sgd, *image_data(images), *few]
    states, losses = [], []
    for processes in (1, 2):
        own = [f"--data.batch_size={8 // processes}", f"--trainer.logger.name={processes}"]
        _run(["fit", *args, *own], processes)
        (checkpoint,) = tmp_path.glob(f"runs/{processes}/**/*.ckpt")
        states.append(torch.load(checkpoint, weights_only=True)["state_dict"])
        metrics = pd.read_csv(next(tmp_path.glob(f"runs/{processes}/**/metrics.csv")))
        losses.append(metrics["val/loss"].dropna().iloc[-1])
    one, two = states
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_allclose(two[key], one[key], rtol=1e-4, atol=1e-5, err_msg=key)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.slow
def test_fit__standardises_by_all_processes(images: Path, tmp_path: Path) -> None:
    model = ["--model=dfl.heads.LinearProbeTask", *_backbone("model.", images), *OPTIMIZER]
    args = ["fit", *FIT, *model, *image_data(images), "--data.batch_size=2"]
    means = []
    for name, processes in (("one", 1), ("two", 2)):
        _run([*args, f"--trainer.logger.name={name}"], processes)
        (checkpoint,) = tmp_path.glob(f"runs/{name}/**/*.ckpt")
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        means.append((state["model.normalise.running_mean"], state["model.normalise.count"]))
    # an odd number of training images is filled up by one repeated image
    assert 0 <= means[1][1] - means[0][1] <= 1
    torch.testing.assert_close(means[1][0], means[0][0], rtol=0.05, atol=0.05)


def test_fit__frozen_state_is_bit_identical(images: Path, tmp_path: Path) -> None:
    """The checkpoint leaves the backbone out, so the whole state is compared in this process."""
    import lightning.pytorch as pl

    from dfl.backbones import TimmBackbone
    from dfl.data import ImageDataModule, Pair, Pairs, Resize, Splits
    from dfl.heads import LinearProbeTask

    backbone = TimmBackbone("test_resnet", weights=str(images / "tiny.safetensors"), input_size=32)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert any("running_mean" in key for key in before)
    task = LinearProbeTask({"tiny": backbone}, optimizer=lambda p: torch.optim.AdamW(p, lr=0.1))
    data = ImageDataModule(
        Pairs(images, {"alpha": Pair(real="alpha", fake="alpha")}),
        crop=Resize(32),
        batch_size=4,
        splits=Splits(val_fraction=0.25, folder=tmp_path / "splits"),
    )
    from dfl.app.quiet import quiet_lightning

    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=3, logger=False, default_root_dir=tmp_path
        )
        trainer.fit(task, datamodule=data)
        task.train()
    after = task.backbone.backbones["tiny"].state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]), key
