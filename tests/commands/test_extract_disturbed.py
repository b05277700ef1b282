"""Real processes that are killed, or get in each other's way; more in tests/benchmarks/kill.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from dfl.cli import main
from dfl.data import Crop, Resize
from tests.conftest import REPOSITORY
from tests.runs import image_data

SLOW = """
import time
import dfl.data.views as views
import dfl.features.plan as plan
import dfl.features.writer as writer
from dfl.cli import main

decode = views.decode
views.decode = lambda path: (time.sleep(0.03), decode(path))[1]
plan._SHARD_ROWS, writer._UNDER_WAY = 4, 0
main()
"""


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
    monkeypatch.setattr("dfl.features.plan._SHARD_ROWS", 4)
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), "vit.safetensors")
    Path("slow.py").write_text(SLOW)
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


def _start(args: list[str], log: str) -> "subprocess.Popen[bytes]":
    path = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with Path(log).open("wb") as said:
        command = [sys.executable, "slow.py", *args]
        return subprocess.Popen(command, stdout=said, stderr=said, env=path)


def _bytes(folder: str) -> dict[str, bytes]:
    files = Path(folder).iterdir()
    return {path.name: path.read_bytes() for path in files if path.name != "config.yaml"}


def _shards() -> list[Path]:
    return sorted(Path.cwd().glob(".f.*/shard-*"))


def test_extract__killed_with_a_shard_damaged_ends_the_same(args: list[str], capsys) -> None:
    killed = _start([*args, "--out=f"], "log")
    while len(_shards()) < 3 and killed.poll() is None:
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    first, *_ = made = _shards()
    assert 3 <= len(made) < 12, Path("log").read_text()
    first.write_bytes(first.read_bytes()[:-1] + b"!")
    main([*args, "--out=f"])
    assert "1 of 12 shards are damaged" in capsys.readouterr().err
    main([*args, "--out=whole"])
    assert _bytes("f") == _bytes("whole")
    assert not list(Path.cwd().glob(".f.*"))


def test_extract__two_at_once_end_well(args: list[str]) -> None:
    both = [_start([*args, "--out=f"], log) for log in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0], Path("one").read_text()
    said = sorted(
        ("waiting for that" in text, "already there" in text, "wrote f" in text)
        for text in (Path("one").read_text(), Path("two").read_text())
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
