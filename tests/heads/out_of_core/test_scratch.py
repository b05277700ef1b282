"""Rows on disk of runs that end, that are killed, and that are alive."""

import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfl.errors import HeadError
from dfl.heads.out_of_core.scratch import scratch_rows

ALIVE = """
import sys
from pathlib import Path
import numpy as np
from dfl.heads.out_of_core.scratch import scratch_rows
with scratch_rows([np.zeros((10, 4))], (10, 4), Path(sys.argv[1])) as rows:
    print(rows.file.fileno(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("block", [1, 64, 2**22])
def test_scratch_rows__are_read_back_as_float32(tmp_path: Path, block: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(50, 4))

    with scratch_rows([matrix[:7], matrix[7:8], matrix[8:]], (50, 4), tmp_path) as kept:
        rows = replace(kept, block_bytes=block)
        first, again = rows.blocks(), rows.blocks()
        head = next(first)  # passes may be open at once
        np.testing.assert_array_equal(np.concatenate(list(again)), matrix.astype(np.float32))
        found = np.concatenate([head, *first])
        some = rows.take(np.array([49, 0, 7]))

    np.testing.assert_array_equal(found, matrix.astype(np.float32))
    np.testing.assert_array_equal(some, matrix[[49, 0, 7]].astype(np.float32))


def test_scratch_rows__nothing_stays(tmp_path: Path) -> None:
    blocks = [np.zeros((3, 4))]
    out = tmp_path / "out"
    with scratch_rows(blocks, (3, 4), out) as first, scratch_rows(blocks, (3, 4), out) as second:
        assert first.file.fileno() != second.file.fileno()
    with pytest.raises(KeyError), scratch_rows(blocks, (3, 4), out):
        raise KeyError

    assert first.file.closed
    assert list(out.iterdir()) == []


def test_scratch_rows__of_a_killed_run_are_gone_and_lie_on_the_disk_of_the_output(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ALIVE, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        file = Path(f"/proc/{other.pid}/fd", other.stdout.readline().strip())
        if file.exists():  # Linux
            assert file.stat().st_size == 4 * 10 * 4
            assert file.stat().st_dev == tmp_path.stat().st_dev
        other.send_signal(signal.SIGKILL)

    assert list(tmp_path.iterdir()) == []


def test_scratch_rows__full_disk(tmp_path: Path) -> None:
    def full() -> Iterator[np.ndarray]:
        yield np.zeros((3, 4))
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(
            HeadError,
            match=r"out: the disk does not take what .* \(No space left on device\), 48 bytes whil",
        ),
        scratch_rows(full(), (3, 4), tmp_path / "out"),
    ):
        pass
    assert list((tmp_path / "out").iterdir()) == []
