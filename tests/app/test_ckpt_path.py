import os
from pathlib import Path

import pytest

from dfl.app.ckpt_path import find_checkpoint, runs_of
from dfl.errors import CheckpointError

CSV = {"class_path": "CSVLogger", "init_args": {"save_dir": "runs", "name": "dfl"}}
WANDB = {"class_path": "WandbLogger", "init_args": {"save_dir": "runs", "project": "p"}}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def keep(*files: str) -> None:
    for age, file in enumerate(reversed(files)):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
        os.utime(file, (1e9 - age, 1e9 - age))


def test_runs__of_each_logger_and_callback() -> None:
    assert runs_of({"logger": CSV}) == [Path("runs/dfl")]
    assert runs_of({"logger": [CSV, WANDB]}) == [Path("runs/dfl"), Path("runs/p")]
    assert runs_of({}) == [Path("lightning_logs")]
    assert runs_of({"logger": False, "default_root_dir": "x"}) == [Path("x/lightning_logs")]
    callback = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "kept"}}
    assert Path("kept") in runs_of({"logger": CSV, "callbacks": [callback]})


def test_words__are_of_the_newest_run() -> None:
    old, new = (f"runs/dfl/version_{i}/checkpoints" for i in (10, 9))
    keep(f"{old}/last.ckpt", f"{old}/best.ckpt", f"{new}/best.ckpt", f"{new}/best-v1.ckpt")
    assert find_checkpoint("best", {"logger": CSV}) == Path(f"{new}/best-v1.ckpt")
    message = f"last: the newest run, {new}, keeps best-v1.ckpt, best.ckpt; give --ckpt_path one"
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint("last", {"logger": CSV})
    assert find_checkpoint("last", {"logger": WANDB}) is None


def test_file__of_which_there_is_none_names_those_near() -> None:
    best, last = (f"runs/dfl/version_0/checkpoints/{name}.ckpt" for name in ("best", "last"))
    keep(best, last, "mine.ckpt")
    for asked, near in (
        ("runs/dfl/version_0/checkpoints/bset.ckpt", best),
        ("runs/dfl/version_1/checkpoints/best.ckpt", best),
        ("mien.ckpt", "mine.ckpt"),
        ("x", f"mine.ckpt, {last}, {best}"),
    ):
        message = f"^{asked}: no such checkpoint; there are {near}"
        with pytest.raises(CheckpointError, match=message):
            find_checkpoint(asked, {"logger": CSV})
    assert find_checkpoint("mine.ckpt", {}) == Path("mine.ckpt")
    with pytest.raises(CheckpointError, match=r"^none/a.ckpt: no such checkpoint$"):
        find_checkpoint("none/a.ckpt", {})
