"""How much memory the fit of a pipeline needs, and how much there is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from dfl.heads.estimators.block_scaler import BlockScaler
from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.heads.estimators.meta_estimators import innermost
from dfl.heads.out_of_core.steps import LANDMARKS

IN_MEMORY_BYTES: Final = 2**26
"""Training features up to 64 MiB go to sklearn as one matrix, of which it makes several copies."""

EXACT_RBF_ROWS: Final = 30_000
"""Training images up to which `rbf_svm` is an exact kernel machine, whose time is quadratic."""

_FLOAT32, _FLOAT64 = 4, 8
_COPIES: Final = 4  # sklearn holds the rows, the scaled rows and those in float64
_COVARIANCES: Final = 3  # D x D: what sklearn's LDA makes of them at its peak
_SCATTERS: Final = 6  # D x D: each class's, their sum, and what is made of it
_SHRUNK_SCATTERS: Final = 9  # D x D: those of each class before and after shrinkage
_SUMMED: Final = (PCA, LinearDiscriminantAnalysis, LogisticRegression, LinearSVC, GaussianNB)
_LIMITS: Final = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
)


def need_at_once(pipeline: Pipeline, rows: int, dim: int) -> int:
    """Estimate the memory of sklearn's fit on a matrix.

    Args:
        pipeline: Unfitted.
        rows: Training images.
        dim: Columns of features.

    Returns:
        Bytes.
    """
    need = _COPIES * _FLOAT32 * rows * dim
    for step, width in _widths(pipeline, rows, dim):
        if _has_covariance(step):
            need += _COVARIANCES * _FLOAT64 * width**2
    return need


def need_of_passes(pipeline: Pipeline, rows: int, dim: int) -> int:
    """Estimate the memory of a streamed fit, most of which is sums of D x D over the rows.

    Args:
        pipeline: Unfitted; one that can be streamed.
        rows: Training images.
        dim: Columns of features.

    Returns:
        Bytes.
    """
    need = 0
    for step, width in _widths(pipeline, rows, dim):
        if type(step) in _SUMMED:
            matrices = _SHRUNK_SCATTERS if _has_covariance(step) else _SCATTERS
            need += matrices * _FLOAT64 * width**2
        elif type(step) is SVC:
            landmarks = min(LANDMARKS, rows)
            need += _FLOAT64 * landmarks * (_SCATTERS * landmarks + 2 * width)
            if step.gamma == "scale":
                need += _SCATTERS * _FLOAT64 * width**2
    return need


def _has_covariance(step: BaseEstimator) -> bool:
    return type(step) is LinearDiscriminantAnalysis and step.solver != "svd"


def _widths(pipeline: Pipeline, rows: int, dim: int) -> Iterator[tuple[BaseEstimator, int]]:
    """Go through the steps, each with the columns that it takes."""
    for _, each in pipeline.steps:
        step = innermost(each)
        yield step, dim
        if type(step) is BottleneckEncoder:
            dim = len(step.biases[-1])
        elif type(step) in (PCA, Nystroem):
            count = step.n_components
            # a fraction of the variance is not known in directions before it is fitted
            dim = min(rows, dim) if count is None or 0 < count < 1 else min(rows, int(count))
        elif type(step) is BlockScaler:
            dim *= 2 if step.differences == "added" else 1  # at most
        elif type(step) is not StandardScaler:
            dim = 0  # not known: nothing is refused for it


def free_memory(
    own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Estimate how many bytes this process can still take.

    What a container or a job of a cluster may take is less than what is free on the machine. Pages
    of files that the kernel keeps in memory are free: it gives them up when they are needed.

    Args:
        own: Which control groups this process is in; Linux alone has such a file.
        groups: Where the control groups are mounted.
    """
    # version 2 has one tree, version 1 one for memory; a path from outside of a container does not
    # exist in it, and what is mounted at the top is then the container's own group
    folders = [groups, groups / "memory"]
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if ".." not in path and (not controllers or "memory" in controllers.split(",")):
            inside = groups / ("memory" if controllers else "") / path.lstrip("/")
            folders += [inside, *inside.parents]  # what a group above allows counts as well
    free: list[int] = [psutil.virtual_memory().available]
    for folder in folders:
        for limit, used in _LIMITS:
            try:
                most, taken = (int((folder / name).read_text()) for name in (limit, used))
            except (OSError, ValueError):  # no such limit, or "max"
                continue
            free.append(most - max(0, taken - _cached(folder / "memory.stat")))
    return max(0, min(free))


def _cached(statistics: Path) -> int:
    """Count the bytes of files that the kernel keeps for a group, and those below it."""
    try:
        found = dict(line.split() for line in statistics.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    # in version 1 the plain names leave out the groups below
    names = ("inactive_file", "active_file")
    return sum(int(found.get(f"total_{name}", found.get(name, 0))) for name in names)


def readable(size: float) -> str:
    """Write a number of bytes as a person would."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
