"""What a process can still take, from files as the kernel shows them, and what a fit needs."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from dfl.heads.estimators import lda, linear_svm, naive_bayes, rbf_svm
from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.heads.estimators.reductions import pca, reduced
from dfl.heads.out_of_core.memory import free_memory, need_at_once, need_of_passes

GIB = 2**30


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    machine = SimpleNamespace(available=64 * GIB)
    monkeypatch.setattr("psutil.virtual_memory", lambda: machine)
    return tmp_path


def free(kernel: Path) -> int:
    return free_memory(kernel / "own", kernel / "groups")


def group(folder: Path, limit: int | str, used: int, *, stat: str = "", v1: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("limit_in_bytes", "usage_in_bytes") if v1 else ("max", "current")
    (folder / f"memory.{names[0]}").write_text(f"{limit}\n")
    (folder / f"memory.{names[1]}").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat)


def test_free_memory__pages_of_files_are_free(kernel: Path) -> None:
    (kernel / "own").write_text("0::/\n")
    stat = f"anon {GIB}\nfile {7 * GIB}\ninactive_file {5 * GIB}\nactive_file {GIB}\nshmem {GIB}\n"
    group(kernel / "groups", 8 * GIB, 8 * GIB, stat=stat)

    assert free(kernel) == 6 * GIB


def test_free_memory__without_statistics(kernel: Path) -> None:
    group(kernel / "groups", 8 * GIB, 3 * GIB)

    assert free(kernel) == 5 * GIB


@pytest.mark.parametrize(("upper", "expected"), [(32 * GIB, 2 * GIB), ("max", 2 * GIB), (GIB, 0)])
def test_free_memory__of_the_own_group_and_those_above(
    kernel: Path, upper: int | str, expected: int
) -> None:
    (kernel / "own").write_text("0::/job.slice/step:0\n")
    (kernel / "groups").mkdir()  # the topmost group of a machine has no limit
    group(kernel / "groups" / "job.slice", upper, 2 * GIB)
    group(kernel / "groups" / "job.slice" / "step:0", 4 * GIB, 2 * GIB)
    group(kernel / "groups" / "other", 1, 1)

    assert free(kernel) == expected


@pytest.mark.parametrize("own", ["0::/pod/not/there\n", "0::/../../elsewhere\n", "", None])
def test_free_memory__of_what_is_mounted_in_a_container(kernel: Path, own: str | None) -> None:
    if own is not None:
        (kernel / "own").write_text(own)
    group(kernel / "groups", 8 * GIB, 3 * GIB)

    assert free(kernel) == 5 * GIB


def test_free_memory__version_1(kernel: Path) -> None:
    (kernel / "own").write_text("5:cpu:/\n4:memory,hugetlb:/slurm/job\n0::/\n")
    stat = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file {GIB}\n"
    group(kernel / "groups" / "memory", 2**63 - 4096, 50 * GIB, v1=True)
    group(kernel / "groups" / "memory" / "slurm" / "job", 8 * GIB, 7 * GIB, stat=stat, v1=True)

    assert free(kernel) == 3 * GIB


def test_free_memory__without_a_limit(kernel: Path) -> None:
    (kernel / "own").write_text("0::/\n")
    group(kernel / "groups", "max", GIB)

    assert free(kernel) == 64 * GIB


ENCODER = BottleneckEncoder(
    np.zeros(200), np.ones(200), [np.zeros((7, 200))], [np.zeros(7)], features=[]
)


@pytest.mark.parametrize(
    ("pipeline", "passes", "covariance"),
    [
        (linear_svm(), 6 * 8 * 200**2, 0),
        (naive_bayes(), 6 * 8 * 200**2, 0),
        (lda(), 9 * 8 * 200**2, 3 * 8 * 200**2),
        (lda(shrinkage=None), 6 * 8 * 200**2, 0),
        (reduced(lda(), pca(20)), 6 * 8 * 200**2 + 9 * 8 * 20**2, 3 * 8 * 20**2),
        (reduced(lda(), pca(0.9)), 6 * 8 * 200**2 + 9 * 8 * 50**2, 3 * 8 * 50**2),
        (Pipeline([("b", ENCODER), *linear_svm().steps]), 6 * 8 * 7**2, 0),
        (rbf_svm(), 6 * 8 * (200**2 + 50**2) + 2 * 8 * 50 * 200, 0),
        (rbf_svm(gamma=0.1), 6 * 8 * 50**2 + 2 * 8 * 50 * 200, 0),
    ],
)
def test_need__of_50_rows_of_200_columns(pipeline: Pipeline, passes: int, covariance: int) -> None:
    assert need_of_passes(pipeline, 50, 200) == passes
    assert need_at_once(pipeline, 50, 200) == 4 * 4 * 50 * 200 + covariance
