"""Steps before an estimator on streamed rows: principal components, and a kernel's features."""

import warnings
from typing import Final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.svm import SVC
from sklearn.utils.extmath import svd_flip

from dfl.errors import HeadError
from dfl.heads.out_of_core.stream import Stream
from dfl.types import FAKE, REAL

LANDMARKS: Final = 1000
"""Training images by whose similarity to it `rbf_svm` describes an image where there are many."""

_FEW_ROWS: Final = (np.array([[-1.0], [1.0], [0.0], [2.0]]), np.array([REAL, REAL, FAKE, FAKE]))


def fit_few_rows(estimator: BaseEstimator) -> BaseEstimator:
    """Let sklearn fit an estimator in place, on a few made-up rows of one column.

    So it refuses the settings that it refuses, and leaves all that it keeps in an estimator, some
    of it under private names, which change. What is learnt of the rows that matter replaces the
    rest, by its public names.

    Args:
        estimator: An sklearn estimator that can learn from such rows.

    Returns:
        The same.

    Raises:
        ValueError: If sklearn refuses a setting.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*_FEW_ROWS)


def fit_pca(step: PCA, stream: Stream) -> None:
    """Fit in place, by the eigenvectors of the covariance.

    Raises:
        HeadError: If there are fewer rows or columns than components, or `n_components` is neither
            a number of them nor a fraction of the variance.
    """
    moments = stream.moments()
    rows, width = stream.n_rows, stream.dim
    most = min(rows, width)
    given = step.n_components
    wanted = most if given is None else given
    if not 0 < wanted <= most or (wanted > 1 and wanted % 1):
        raise HeadError(
            f"PCA cannot be fitted: n_components={wanted} must be above 0 and at most "
            f"min(n_samples, n_features)={most}"
        )
    fit_few_rows(step.set_params(n_components=None)).set_params(n_components=given)
    values, vectors = np.linalg.eigh(moments.joint_scatter() / (rows - 1))
    variance = np.maximum(values[::-1], 0)
    _, axes = svd_flip(None, vectors[:, ::-1].T, u_based_decision=False)
    share = variance / variance.sum()
    if 0 < wanted < 1:
        wanted = int(np.searchsorted(np.cumsum(share), wanted, side="right")) + 1
    count = int(wanted)
    step.n_samples_, step.n_features_in_, step.n_components_ = rows, width, count
    step.noise_variance_ = float(variance[count:].mean()) if count < most else 0.0
    # in the type of the features, as sklearn keeps them
    for name, value in (
        ("mean_", moments.joint_mean()),
        ("components_", axes[:count]),
        ("explained_variance_", variance[:count]),
        ("explained_variance_ratio_", share[:count]),
        ("singular_values_", np.sqrt(variance[:count] * (rows - 1))),
    ):
        setattr(step, name, np.ascontiguousarray(value, dtype=np.float32))


def nystroem_of(estimator: SVC, stream: Stream, *, seed: int = 0) -> Nystroem:
    """Make the unfitted step that stands for an RBF kernel, with the same width.

    Args:
        estimator: With kernel ``rbf``.
        stream: What it is to be fitted on; ``gamma: scale`` takes the variance of all its values.
        seed: Decides which rows are the landmarks.
    """
    gamma = estimator.gamma
    if gamma == "auto":
        gamma = 1 / stream.dim
    elif gamma == "scale":
        gamma = 1 / (stream.dim * (_variance_of_all(stream) or 1.0))
    count = min(LANDMARKS, stream.n_rows)
    return Nystroem(kernel="rbf", gamma=float(gamma), n_components=count, random_state=seed)


def fit_nystroem(step: Nystroem, stream: Stream) -> None:
    """Fit in place, with the landmarks that sklearn would draw."""
    count = min(step.n_components, stream.n_rows)
    order = np.random.RandomState(step.random_state).permutation(stream.n_rows)
    landmarks = order[:count].astype(np.int64)
    # float64: what the kernel of like landmarks has almost lost is blown up again
    step.fit(stream.take(landmarks).astype(np.float64))
    step.component_indices_ = landmarks[step.component_indices_]


def _variance_of_all(stream: Stream) -> float:
    moments = stream.moments()
    mean = moments.joint_mean()
    column = np.diagonal(moments.joint_scatter()) / moments.total
    result: np.float64 = column.mean() + mean.var()
    return float(result)
