"""The command `study` as its users meet it: counted passes, kept cells, kills, mistakes."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score, roc_curve
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import dfl.study.run.missing
from dfl.backbones import Backbone
from dfl.cli import main
from dfl.heads.storage.head_folder import load_head
from dfl.study.analysis.judge import AXES
from dfl.study.design.grid import Cell
from dfl.study.run.workers import LocalWorkers
from tests.conftest import REPOSITORY
from tests.processes import start
from tests.runs import image_data
from tests.study.dask_cluster import cluster

IMAGES = 36  # 12 real ones that both pairs share, and 12 fakes of each
CS = (0.001, 0.1, 10.0)


def estimator(name: str, **arguments: object) -> dict[str, object]:
    return {"class_path": f"dfl.heads.estimators.{name}", "init_args": arguments}


def reduction(**arguments: object) -> dict[str, object]:
    return {"class_path": "dfl.heads.estimators.pca", "init_args": arguments}


HEADS = {
    "probe": [estimator("logistic_regression", C=c) for c in CS],
    "svm": [estimator("rbf_svm")],
    "lda": [estimator("lda")],
}
REDUCTIONS = {"none": [], "pca": [reduction(n_components=2)], "wide": [reduction(n_components=99)]}
GRIDS = {
    "frozen": {
        "features": [["vit.pooled", "net"]],
        "reductions": ["none", "pca"],
        "heads": ["probe", "svm"],
    },
    "single": {
        "features": [["vit.block0.cls"], ["net"]],
        "reductions": ["none"],
        "heads": ["lda"],
    },
    "wide": {"features": [["vit"]], "reductions": ["wide"], "heads": ["lda"]},
}
BLUR = {"class_path": "dfl.data.images.transforms.GaussianBlur", "init_args": {"sigma": 1.0}}
NETWORK = {
    "class_path": "dfl.heads.FineTuneTask",
    "init_args": {
        "model": "test_resnet",
        "pretrained": False,
        "input_size": 32,
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}},
    },
}
SRUN = """#!/bin/bash
tasks=$SLURM_NTASKS
while [[ $1 == --* ]]; do [[ $1 == --ntasks=* ]] && tasks=${1#*=}; shift; done
trap 'kill $(jobs -p)' TERM
for n in $(seq "$tasks"); do SLURM_NTASKS=$tasks SLURM_PROCID=$((n - 1)) "$@" & done
for job in $(jobs -p); do wait "$job" || exit; done
"""
DASK = """#!/bin/bash
exec {} -m dask "$@" --host=127.0.0.1
"""
CLAIM = {"statement": "The SVM is best", "axis": "head", "better": ["svm"]}


def backbones(folder: Path) -> dict[str, object]:
    """Two small networks with weights on disk: random ones would be others in every process."""
    found: dict[str, object] = {}
    for n, (name, layers) in enumerate({"vit": ["block0.cls", "pooled"], "net": None}.items()):
        model = {"vit": "test_vit", "net": "test_resnet"}[name]
        file = folder / f"{name}.safetensors"
        if not file.exists():
            torch.manual_seed(n)
            save_file(timm.create_model(model).state_dict(), file)
        arguments = {"model": model, "layers": layers, "weights": str(file), "input_size": 32}
        found[name] = {"class_path": "dfl.backbones.TimmBackbone", "init_args": arguments}
    return found


@pytest.fixture(scope="module")
def home(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of which two pairs share the real ones, and weights."""
    folder = tmp_path_factory.mktemp("study")
    for source, side, name in (
        ("alpha", "0_real", "real"),
        ("alpha", "1_fake", "alpha"),
        ("beta", "1_fake", "beta"),
    ):
        shutil.copytree(image_root / source / side, folder / "images" / name)
    rng = np.random.default_rng(3)  # what no head can tell apart perfectly
    for name in ("real", "alpha", "beta"):
        for file in (folder / "images" / name).iterdir():
            pixels = np.asarray(Image.open(file)).astype(float)
            mixed = 0.1 * pixels + 0.9 * rng.integers(0, 256, pixels.shape)
            Image.fromarray(mixed.astype(np.uint8)).save(file)
    backbones(folder)
    return folder


def options(home: Path, out: str = "out", **changes: object) -> list[str]:
    given = {
        "backbones": backbones(home),
        "heads": HEADS,
        "reductions": REDUCTIONS,
        "grids": GRIDS,
        "conditions": {"none": [], "blur": [BLUR]},
        "condition_use": ["both", "test"],
        "claims": [CLAIM],
    } | changes
    pairs = {name: {"real": "real", "fake": name} for name in ("alpha", "beta")}
    return [
        *image_data(home / "images"),
        f"--data.source.pairs={json.dumps(pairs)}",
        "--data.splits.test_fraction=0.34",
        f"--out={out}",
        *(f"--{name}={json.dumps(value)}" for name, value in given.items() if value is not None),
        "--replicates=100",
        "--jobs=1",
        "--accelerator=cpu",
        "--devices=1",
    ]


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the images that go through each network; blank ones, which time it, are none."""
    seen: Counter[str] = Counter()
    forward = Backbone.forward
    one = threading.Lock()  # several passes of a network run at once

    def counted(self, image):
        images = int(image.flatten(1).any(1).sum())
        with one:
            seen[self.model] += images
        return forward(self, image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "forward", counted)
        yield seen


@contextmanager
def sending() -> Iterator[list[Cell]]:
    """List the cells that are sent to processes."""
    sent: list[Cell] = []
    run_cells = dfl.study.run.missing.run_cells

    def listed(cells, *args, **kwargs):
        sent.extend(cells)
        run_cells(cells, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dfl.study.run.missing, "run_cells", listed)
        yield sent


@dataclass
class Finished:
    """A finished study, and what it did."""

    out: Path
    planned: str
    printed: str
    seen: Counter[str]
    cells: dict[Path, int]

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.out / "results.csv")


def kept(out: Path) -> dict[Path, int]:
    return {
        file.relative_to(out): file.stat().st_mtime_ns for file in out.glob("cells/*/cell.json")
    }


def run(args: list[str]) -> str:
    """Run the command in this process; give what it printed."""
    with redirect_stdout(io.StringIO()) as printed:
        main(["study", *args])
    return printed.getvalue()


@pytest.fixture(scope="module", autouse=True)
def processes() -> Iterator[None]:
    """Have the processes of one study serve the next: they take longer to start than to fit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalWorkers, "close", lambda workers: None)
        yield
    with LocalWorkers(1) as workers:
        workers.executor(1)


@pytest.fixture(scope="module")
def finished(home: Path) -> Finished:
    """The study, once, undisturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        planned = run(options(home, plan_only=True))
        assert not (home / "out").exists()
        assert {path.name for path in home.iterdir()} <= {
            "images",
            "splits",
            "vit.safetensors",
            "net.safetensors",
        }
        with counting() as seen:
            printed = run(options(home))
    return Finished(home / "out", planned, printed, seen, kept(home / "out"))


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def test_plan__counted_by_hand(finished: Finished) -> None:
    # a fusion with 2 reductions x 2 heads, 2 single layers with 1 head, and 1 that is too wide,
    # for 3 training sets and 2 conditions of training
    assert (
        "cells: 42 (3 training sets, 2 training conditions, 1 seeds), 0 of them" in finished.planned
    )
    assert (
        "forward passes: 144 (36 images x 2 conditions x 2 backbones), 0 made" in finished.planned
    )
    # of each set of 12 images 6 are learnt from and 6 scored; both pairs have the same real ones
    learnt_from, scored = (12 + 12 + 18), 3 * 18
    # trained on none: scored under 2 conditions, on blur: 1; the fusion is of two backbones
    alone = (2 * learnt_from + 3 * scored) * (4 * 2 + 2 + 1)
    assert f"; {alone - 144} saved" in finished.planned
    assert "time left: about" in finished.planned


def test_study__every_image_goes_through_every_backbone_once_a_condition(
    finished: Finished,
) -> None:
    # though both pairs share the real images, and fusions, heads, training sets use them again
    assert finished.seen == {"test_vit": IMAGES * 2, "test_resnet": IMAGES * 2}


def test_study__a_failing_cell_is_reported_and_stops_no_other(finished: Finished) -> None:
    assert len(finished.cells) == 36
    assert "6 cells failed" in finished.printed
    page = (finished.out / "report.html").read_text(encoding="utf-8")
    assert "n_components=99 must be between 0 and min(n_samples, n_features)=12" in page
    assert set(finished.table["reduction"]) == {"none", "pca"}


def test_study__the_tables(finished: Finished) -> None:
    table = finished.table
    pd.testing.assert_frame_equal(
        table, pd.read_parquet(finished.out / "results.parquet"), check_dtype=False, rtol=1e-4
    )
    keys = [*AXES, "split", "scope", "name"]
    assert not table.duplicated(keys).any()
    conditions = set(zip(table["train_condition"], table["test_condition"], strict=True))
    assert conditions == {("none", "none"), ("blur", "blur"), ("none", "blur")}
    cells = table.drop_duplicates(["features", "reduction", "head", "train_set", "train_condition"])
    assert len(cells) == 36
    # 2 datasets, 2 generators, pooled, macro, worst, seen, and unseen but for the combination
    assert len(table) == (12 * 9 + 6 * 8) * 3 * 2
    pooled = table[(table["scope"] == "pooled") & (table["split"] == "test")]
    assert set(zip(pooled["n_real"], pooled["n_fake"], strict=True)) == {(4, 8)}


def test_study__numbers_of_plain_sklearn(finished: Finished) -> None:
    """Trained on alpha, chosen on its validation images, tested on beta; from the files alone."""
    folder = finished.out / "features" / "none"
    (splits,) = (finished.out.parent / "splits").glob("*.csv")
    rows = pd.read_csv(splits)
    assert rows["path"].equals(pd.read_csv(folder / "vit" / "manifest.csv")["path"])
    x = np.hstack([np.load(folder / n / f"{n}.pooled.npy") for n in ("vit", "net")])
    label = rows["label"].to_numpy()
    train, val = (((rows["dataset"] == "alpha") & (rows["split"] == s)) for s in ("train", "val"))
    scaled = StandardScaler().fit(x[train]).transform(x)

    def merit(score: np.ndarray) -> tuple[float, float]:
        fpr, tpr, _ = roc_curve(label[val], score[val], drop_intermediate=False)
        return roc_auc_score(label[val], score[val]), (tpr - fpr).max()

    probes = [LogisticRegression(C=c, max_iter=2000) for c in CS]
    scores = {
        "probe": max((fit_scores(p, scaled, label, train) for p in probes), key=merit),
        "svm": fit_scores(SVC(C=1.0), scaled, label, train),
    }
    table = finished.table
    table = table[(table["features"] == "vit.pooled+net.pooled") & (table["reduction"] == "none")]
    table = table[(table["train_set"] == "alpha") & (table["test_condition"] == "none")]
    table = table[(table["scope"] == "dataset") & (table["split"] == "test")]
    for name, score in scores.items():
        for dataset in ("alpha", "beta"):
            at = ((rows["dataset"] == dataset) & (rows["split"] == "test")).to_numpy()
            (row,) = table[(table["head"] == name) & (table["name"] == dataset)].to_dict("records")
            assert row["auroc"] == pytest.approx(roc_auc_score(label[at], score[at]), abs=1e-6)
            assert row["accuracy"] == pytest.approx(accuracy_score(label[at], score[at] > 0))


def fit_scores(estimator, x: np.ndarray, label: np.ndarray, train: np.ndarray) -> np.ndarray:
    return estimator.fit(x[train], label[train]).decision_function(x)


def test_study__the_best_head_can_be_taken_home(finished: Finished, capsys) -> None:
    head = load_head(finished.out / "best")
    assert head.spec
    folder = finished.out / "features" / "none" / head.spec[0].name.partition(".")[0]
    if len({layer.name.partition(".")[0] for layer in head.spec}) == 1:
        main(["score", f"--features={folder}", f"--head={finished.out / 'best'}", "--out=s.csv"])
        assert len(pd.read_csv("s.csv")) == 48
    args = [f"--detector={finished.out / 'best'}", "--images=images/alpha", "--out=found.csv"]
    main(["detect", *args, "--num_workers=0", "--accelerator=cpu", "--devices=1"])
    assert len(pd.read_csv("found.csv")) == 12


def test_study__again_there_is_nothing_to_do(home: Path, finished: Finished) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.out.rglob("*") if file.is_file()}
    with counting() as seen, sending() as sent:
        printed = run(options(home))
    assert "nothing to do" in printed
    assert not seen.total()
    assert {cell.reduction for cell in sent} == {"wide"}  # what failed is tried again
    assert len(sent) == 6
    assert "36 of them done before" in printed
    assert "144 made before" in printed
    assert {file: file.stat().st_mtime_ns for file in before} == before


def small(home: Path, *heads: str, out: str = "small") -> list[str]:
    """A study of one backbone without reductions, in a folder of its own."""
    return options(
        home,
        out,
        grids={"frozen": {"features": [["net"]], "reductions": ["none"]}},
        heads={name: HEADS[name] for name in heads},
        reductions=None,
        conditions=None,
        condition_use=None,
        claims=None,
    )


def test_study__its_files_are_all_there_and_of_one_config_or_it_is_not_done(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    out = home / "small"
    run(small(home, "lda"))
    assert "nothing to do" in run(small(home, "lda"))
    numbers = (out / "results.csv").read_bytes()
    for gone in (out / "best", out / "cells.csv"):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        assert "nothing to do" not in run(small(home, "lda"))
        assert gone.exists()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dfl.study.publish.write_study_page", killed)
        with pytest.raises(SystemExit, match="130"):
            run(small(home, "svm"))
    assert (out / "results.csv").read_bytes() != numbers
    assert "nothing to do" not in run(small(home, "lda"))
    assert (out / "results.csv").read_bytes() == numbers

    def broken(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("dfl.study.publish.log_study", broken)
    logger = ["--logger=lightning.pytorch.loggers.WandbLogger", "--logger.project=p"]
    run([*small(home, "lda"), *logger, "--logger.offline=true"])
    assert "the study could not be logged (OSError: no network); it is there" in caplog.text
    assert "nothing to do" in run(small(home, "lda"))


def test_study__more_of_everything_keeps_what_is_there(home: Path) -> None:
    heads = {name: HEADS[name] for name in ("lda", "svm")}
    changes = {
        "grids": {"frozen": {"features": [["net"]], "reductions": ["none"]}},
        "reductions": None,
    }
    run(options(home, "more", **changes, heads=heads))
    before, table = kept(home / "more"), pd.read_csv(home / "more" / "results.csv")
    assert len(before) == 2 * 3 * 2
    changes |= {
        "heads": heads | {"bayes": [estimator("naive_bayes")]},
        "seeds": [0, 5],
        "baselines": {"tuned": NETWORK},
        "finetuning": {"max_epochs": 1, "train_sets": ["alpha"]},
    }
    with counting() as seen, sending() as sent:
        run(options(home, "more", **changes))
    assert not seen.total()  # neither a head nor a seed costs a forward pass
    assert {(cell.seed, cell.head) for cell in sent} == {
        (0, "bayes"),
        *((5, name) for name in (*heads, "bayes")),
    }
    after = kept(home / "more")
    assert {file: after[file] for file in before} == before
    assert len(after) == 2 * 3 * 3 * 2 + 2  # and a network for each seed
    more = pd.read_csv(home / "more" / "results.csv")
    tuned = more[more["head"] == "end to end"]
    assert set(tuned["features"]) == {"tuned"}
    assert set(tuned["seed"]) == {0, 5}
    tested = tuned[(tuned["scope"] == "dataset") & (tuned["split"] == "test")]
    assert set(zip(tested["name"], tested["test_condition"], strict=True)) == {
        (name, condition) for name in ("alpha", "beta") for condition in ("none", "blur")
    }
    assert tested["auroc"].between(0, 1).all()
    # what was there has the numbers that it had
    same = more[(more["seed"] == 0) & more["head"].isin(list(heads))]
    order = [*AXES, "split", "scope", "name"]
    pd.testing.assert_frame_equal(
        same.reset_index(drop=True).sort_values(order, ignore_index=True),
        table.sort_values(order, ignore_index=True),
    )
    with counting() as seen, sending() as sent:
        assert "nothing to do" in run(options(home, "more", **changes))
    assert (seen.total(), sent) == (0, [])


def test_study__draws_and_crops(home: Path) -> None:
    """Heads learn from draws, and are tested on images as they come and as another crop shows."""
    jitter = {"class_path": "dfl.data.ColorJitter", "init_args": {"brightness": [0.5, 1.5]}}
    cut = {"class_path": "dfl.data.RandomCrop", "init_args": {"size": 24}}
    changes = {
        "grids": {"frozen": {"features": [["net"]], "reductions": ["none"]}},
        "heads": {name: HEADS[name] for name in ("probe", "lda")},
        "reductions": None,
        "claims": None,
        "conditions": {"none": [], "four": []},
        "condition_use": ["test"],
        "crops": {
            "four": {"class_path": "dfl.data.MultiCrop", "init_args": {"size": 24, "count": 4}}
        },
        "draws": {"dim": {"count": 2, "transforms": [jitter], "crop": cut, "beside": ["none"]}},
    }
    with counting() as seen:
        printed = run(options(home, "drawn", **changes))
    # 36 images as they come, in four squares, and in two draws
    assert seen == dict.fromkeys(("test_vit", "test_resnet"), 36 * 4)
    assert "(36 images x 4 conditions, 2 of them draws, x 2 backbones)" in printed
    table = pd.read_csv(home / "drawn" / "results.csv")
    assert set(zip(table["train_condition"], table["test_condition"], strict=True)) == {
        (trained, tested) for trained in ("none", "dim") for tested in ("none", "four")
    }
    tested = table[(table["scope"] == "dataset") & (table["split"] == "test")]
    keys = ["train_condition", "test_condition", "train_set", "name", "head"]
    by = tested.set_index(keys).sort_index()
    assert by["auroc"].between(0, 1).all()
    assert (by.loc["dim"]["auroc"] != by.loc["none"]["auroc"]).any()
    with counting() as seen, sending() as sent:
        assert "nothing to do" in run(options(home, "drawn", **changes))
    assert (seen.total(), sent) == (0, [])


def killed_when(args: list[str], there: Callable[[], bool]) -> None:
    """Run the study in a process of its own, and kill that at a moment."""
    process = start(["study", *args], Path("said.txt"))
    try:
        end = time.monotonic() + 120
        while not there() and process.is_alive() and time.monotonic() < end:
            time.sleep(0.002)
    finally:
        process.kill()
        process.join()
    time.sleep(0.3)  # its processes end with it, though not at the same moment
    assert there(), Path("said.txt").read_text()


@pytest.mark.slow
def test_study__killed_it_goes_on_and_ends_the_same(home: Path, finished: Finished) -> None:
    args, out = options(home, "killed"), home / "killed"
    killed_when(args, lambda: (out / "features" / "none" / "vit" / "features.json").exists())
    assert not (out / "results.csv").exists()
    killed_when(args, lambda: bool(kept(out)))
    assert not (out / "report.html").exists()
    before = kept(out)
    with counting() as seen:
        run(args)
    assert not seen.total()  # the features were all there when the first cell was kept
    after = kept(out)
    assert {file: after[file] for file in before} == before
    assert set(after) == set(finished.cells)
    # to the bit, though the killed processes had another number of threads than this one
    matrices = {file.relative_to(finished.out): file for file in finished.out.rglob("*.npy")}
    assert len(matrices) == 6  # two conditions of two layers of one backbone and one of another
    for place, file in matrices.items():
        assert (out / place).read_bytes() == file.read_bytes(), place
    assert (out / "results.csv").read_bytes() == (finished.out / "results.csv").read_bytes()
    heads = [json.loads((of / "best/head.json").read_text()) for of in (out, finished.out)]
    seals = {"checksum": "", "checksums": {}}
    assert heads[0] | seals == heads[1] | seals  # a zip file holds the time
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_study__on_a_cluster_whose_worker_is_killed_it_ends_the_same(
    home: Path, finished: Finished, tmp_path: Path
) -> None:
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    args = [*options(home, "cluster"), f"--features_dir={finished.out / 'features'}"]

    def kill() -> None:
        while there.workers[0].poll() is None:
            time.sleep(0.002)
            if kept(home / "cluster"):
                there.workers[0].kill()

    with cluster(tmp_path) as there:
        killer = threading.Thread(target=kill)
        killer.start()
        printed = run([*args, "--executor=dask", f"--scheduler={there.address}"])
        killer.join()
    assert "6 cells failed" in printed
    assert set(kept(home / "cluster")) == set(finished.cells)
    numbers = [(out / "results.csv").read_bytes() for out in (home / "cluster", finished.out)]
    assert numbers[0] == numbers[1]
    assert "nothing to do" in run(args)  # on one machine


@pytest.mark.slow
def test_slurm__study(home: Path, finished: Finished, tmp_path: Path) -> None:
    """The batch script, with a stand-in for srun that starts as many processes as it is told."""
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    for name, text in (("srun", SRUN), ("dask", DASK.format(sys.executable))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_CPUS_ON_NODE": "2",
    }
    config = tmp_path / "study.yaml"
    config.write_text("title: On several machines\n")
    args = [*small(home, "lda", out="slurm"), f"--features_dir={finished.out / 'features'}"]
    done = subprocess.run(
        ["bash", str(REPOSITORY / "configs/slurm/study_dask.sbatch"), str(config), *args],
        env=environment,
        cwd=home,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "On several machines" in done.stdout
    assert not list(home.glob(".dask-*"))
    title = "--title=On several machines"
    assert "nothing to do: 3 cells are there" in run([*args, title])  # on one


# Mistakes: each ends in one line that says what to do, before anything is extracted


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"heads": {}}, [], "heads: empty; name at least one"),
        ({"heads": {"lda": []}, "grids": None}, [], "heads.lda: no candidate"),
        ({"backbones": {}}, [], "backbones: empty"),
        ({"heads": {"a b": HEADS["lda"]}, "grids": None}, [], "'a b' cannot be a name"),
        ({"grids": {"mine": {"heads": ["x"]}}}, [], "grids.mine.heads: no 'x'"),
        ({"grids": {"mine": {"reductions": ["ica"]}}}, [], "grids.mine.reductions: no 'ica'"),
        ({"grids": {"mine": {"features": [["clip"]]}}}, [], "no layer 'clip'"),
        ({"grids": {"mine": {"features": []}}}, [], "features: no set"),
        ({"grids": {"mine": {"classifiers": ["lda"]}}}, [], "classifiers"),
        ({}, ["--metric=best"], "metric: no 'best'; choose accuracy, accuracy_at_val_threshold"),
        ({}, ["--metric=calibration_error"], "metric: no 'calibration_error'; choose"),
        ({}, ["--replicates=50"], "replicates: at least 100"),
        ({}, ["--jobs=0"], "jobs: must be at least 1"),
        ({"train_on": ["most"]}, [], "train_on"),
        ({"matched": ["x", "alpha", "y"]}, [], "matched: no dataset x, y; there are alpha, beta"),
        ({"families": {"f": ["x"]}}, [], "families: no fake is of x; the generators are"),
        ({"sources": {"s": ["x/*"]}}, [], "sources: no photograph is in x/*; name datasets"),
        ({}, ["--max_fpr=1"], "max_fpr: a share must be in [0, 1), got 1.0"),
        ({"condition_use": ["never"]}, [], "condition_use"),
        ({"claims": [CLAIM | {"better": []}]}, [], "'The SVM is best' says that [] is better"),
        ({"claims": [CLAIM | {"axis": "colour"}]}, [], "axis"),
        ({"finetuning": {"max_epochs": 0}}, [], "max_epochs and patience must be at least 1"),
        ({"finetuning": {"train_sets": ["x"]}, "baselines": {"net": NETWORK}}, [], "no 'x'"),
        ({"conditions": {"none": [], "blur": [BLUR | {"init_args": {"sigma": -1}}]}}, [], "sigma"),
        ({"draws": {"blur": {"transforms": [BLUR]}}}, [], "draws.blur: a condition is called so"),
        ({"draws": {"d": {"transforms": [BLUR]}}}, [], "draws.d: nothing is random"),
        (
            {"draws": {"d": {"beside": ["x"]}}},
            [],
            "draws.d.beside: no condition x; there are: none",
        ),
        (
            {"crops": {"x": {"class_path": "dfl.data.Squash", "init_args": {"size": 8}}}},
            [],
            "no condition x",
        ),
        ({}, ["--data.splits.test_fraction=0"], "no image is in the test split"),
        ({}, ["--logger=lightning.pytorch.loggers.CSVLogger", "--logger.save_dir=x"], "CSVLogger"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_mistake__one_line(home: Path, changes, more, message: str, capsys, tmp_path) -> None:
    args = [*options(home, str(tmp_path / "out"), **changes), *more]
    assert message in fails(args, capsys)
    assert not (tmp_path / "out").exists()


def test_study__leaves_out_families_and_sources(
    home: Path, image_root: Path, tmp_path: Path, capsys
) -> None:
    """Matched datasets are looked for, and come first in the terminal and on the page."""
    shutil.copytree(image_root / "beta/0_real", home / "images/others")
    pairs = {"alpha": {"real": "real", "fake": "alpha"}, "beta": {"real": "others", "fake": "beta"}}
    changes: dict[str, object] = {
        "train_on": ["combined", "leave_one_family_and_source_out"],
        "grids": {"frozen": {"features": [["net"]], "heads": ["lda"]}},
        "reductions": {"none": []},
        "conditions": None,
        "condition_use": None,
        "claims": None,
        "data.source.pairs": pairs,
    }
    out = tmp_path / "out"
    main(["study", *options(home, str(out), **changes), "--metric=auroc"])
    assert "alpha: not matched, " in capsys.readouterr().out
    main(["study", *options(home, str(out), **changes, matched=["alpha"]), "--metric=auroc"])
    said = capsys.readouterr().out
    assert "Best where generators and photographs are new" in said
    first = said.index("New generators, new photographs")
    assert first < said.index("training set by test set")
    table = pd.read_csv(out / "results.csv")
    new = table[table["train_set"] == "without family and source of alpha"]
    (own,) = new[
        (new["scope"] == "dataset") & (new["name"] == "alpha") & (new["split"] == "test")
    ].to_dict("records")
    assert (own["n_real"], own["n_fake"]) == (12, 12)  # all of them, whatever their split
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.index("Where generators and photographs are new") < page.index('id="claims"')


def test_mistake__images_without_labels(home: Path, capsys, tmp_path) -> None:
    args = [option for option in options(home, str(tmp_path / "out")) if "--data" not in option]
    data = ["--data=dfl.data.ImageDataModule", "--data.source=dfl.data.Folder"]
    data += ["--data.source.root=images/alpha"]
    data += ["--data.crop=dfl.data.Resize", "--data.crop.size=32"]
    assert "no image is in the train split" in fails([*data, *args], capsys)
    assert not (tmp_path / "out").exists()


def test_mistake__features_of_other_images(home: Path, finished: Finished, capsys) -> None:
    message = fails([*options(home), "--data.crop.size=24"], capsys)
    assert "holds other features" in message
    assert "name another folder with --features_dir, or delete this one" in message
    assert kept(finished.out) == finished.cells


def fails(args: list[str], capsys) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["study", *args])
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl ")]
    assert len(lines) == 1, lines
    return lines[0]
