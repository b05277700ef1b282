"""Real processes that are killed, or get in each other's way; more in tests/benchmarks/kill.py."""

import os
import signal
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from dfl.cli import main
from dfl.data import Crop, Resize
from dfl.data.images import views
from dfl.features import shards, writer
from tests.processes import start
from tests.runs import image_data


def _decode_slowly() -> None:
    read = views.read_image
    views.read_image = lambda path: (time.sleep(0.03), read(path))[1]
    shards._SHARD_ROWS, writer._UNDER_WAY = 4, 0


class DeadlyCrop(Crop):
    """Ends the process that decodes."""

    def __init__(self, size: int = 32) -> None:
        self.size = size

    def __call__(self, image: Tensor) -> Tensor:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return Resize(self.size)(image)


@pytest.fixture
def args(image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dfl.features.shards._SHARD_ROWS", 4)
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), "vit.safetensors")
    return [
        "extract",
        *image_data(image_root),
        "--data.batch_size=2",
        "--backbones.vit=dfl.backbones.TimmBackbone",
        "--backbones.vit.model=test_vit",
        "--backbones.vit.weights=vit.safetensors",
        "--backbones.vit.input_size=32",
        "--accelerator=cpu",
        "--devices=1",
    ]


def _bytes(folder: str) -> dict[str, bytes]:
    files = Path(folder).iterdir()
    return {path.name: path.read_bytes() for path in files if path.name != "config.yaml"}


def _shards() -> list[Path]:
    return sorted(Path.cwd().glob(".f.*/shard-*"))


@pytest.mark.slow
def test_extract__killed_with_a_shard_damaged_ends_the_same(args: list[str], capsys) -> None:
    killed = start([*args, "--out=f"], Path("log"), prepare=_decode_slowly)
    while len(_shards()) < 3 and killed.is_alive():
        time.sleep(0.005)
    killed.kill()
    killed.join()
    first, *_ = made = _shards()
    assert 3 <= len(made) < 12, Path("log").read_text()
    first.write_bytes(first.read_bytes()[:-1] + b"!")
    main([*args, "--out=f"])
    assert "1 of 12 shards are damaged" in capsys.readouterr().err
    main([*args, "--out=whole"])
    assert _bytes("f") == _bytes("whole")
    assert not list(Path.cwd().glob(".f.*"))


@pytest.mark.slow
def test_extract__ends_when_asked_and_goes_on_later(args: list[str], capsys) -> None:
    """Schedulers send SIGTERM, which Lightning notes and goes on."""
    asked = start([*args, "--out=f"], Path("log"), prepare=_decode_slowly)
    while not _shards() and asked.is_alive():
        time.sleep(0.005)
    asked.terminate()
    asked.join(30)
    assert asked.exitcode == 128 + signal.SIGTERM
    last = Path("log").read_text().splitlines()[-1]
    assert last == "dfl extract: ended by SIGTERM; the same command goes on where it was"
    assert _shards()
    main([*args, "--out=f"])
    main([*args, "--out=whole"])
    for file in Path("whole").glob("*.npy"):
        assert (Path("f") / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_extract__two_at_once_end_well(args: list[str]) -> None:
    logs = Path("one"), Path("two")
    both = [start([*args, "--out=f"], log, prepare=_decode_slowly) for log in logs]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0], logs[0].read_text()
    said = sorted(
        ("waiting for that" in text, "already there" in text, "wrote f" in text)
        for text in (log.read_text() for log in logs)
    )
    assert said == [(False, False, True), (True, True, False)]
    main([*args, "--out=whole"])
    assert _bytes("f") == _bytes("whole")
    assert not list(Path.cwd().glob(".f.*"))


def test_extract__dead_worker_is_one_line(args: list[str], capsys) -> None:
    deadly = [
        "--data.crop=tests.commands.test_extract_disturbed.DeadlyCrop",
        "--data.num_workers=1",
        "--out=f",
    ]
    with pytest.raises(SystemExit) as caught:
        main([*args, *deadly])
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl ")]
    assert len(lines) == 1
    assert "a process that decodes images was ended from outside" in lines[0]
    main([*args, *deadly[:1], "--data.num_workers=0", "--out=f"])
    assert not list(Path.cwd().glob(".f.*"))
