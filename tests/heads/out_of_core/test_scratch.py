"""Scratch folders of runs that end, that are killed, and that are alive."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dfl import lock
from dfl.heads.out_of_core.scratch import remove_leftovers, scratch_folder

ALIVE = """
import sys
from pathlib import Path
from dfl.heads.out_of_core.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "rows.f32").write_bytes(bytes(1000))
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_scratch_folder__nothing_stays(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "out") as first, scratch_folder(tmp_path / "out") as second:
        assert first != second
        assert first.is_dir()
        (first / "rows.f32").write_bytes(b"1")
    with pytest.raises(KeyError), scratch_folder(tmp_path / "out"):
        raise KeyError

    assert list((tmp_path / "out").iterdir()) == []


def test_remove_leftovers__of_a_killed_run_and_not_of_one_alive(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ALIVE, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        remove_leftovers(tmp_path)
        assert (folder / "rows.f32").is_file()

        other.send_signal(signal.SIGKILL)
        other.wait()
        assert folder.is_dir()
        remove_leftovers(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_remove_leftovers__whatever_layer_of_them_is_there(tmp_path: Path) -> None:
    (tmp_path / ".rows.a").mkdir()
    (tmp_path / ".rows.a" / "rows.f32").touch()
    (tmp_path / ".rows.b.lock").touch()
    (tmp_path / "lda").mkdir()
    (tmp_path / "rows.lock").touch()

    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "missing")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["lda", "rows.lock"]


def test_remove_leftovers__without_locks_they_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    with scratch_folder(tmp_path) as folder:
        remove_leftovers(tmp_path)
        assert folder.is_dir()

    assert f"{folder}: cannot tell whether a run still uses it" in caplog.text
    assert list(tmp_path.iterdir()) == []
