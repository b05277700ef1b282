"""Heads on disk, without pickle: a folder with the pipeline, what made it, and its scores.

head.skops           the fitted pipeline; only known types are ever built from it
head.json            features, settings, operating point, training counts, versions; the SHA-256 of
                     head.skops, and its own
scores.csv           written by `dfl heads`
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from dfl.artifacts import Kind
from dfl.errors import CheckpointError, HeadError
from dfl.files import checksum_of
from dfl.folders import locked, recover_folder
from dfl.heads.estimators.reductions import StoredEncoder
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.heads.storage.skops_file import dump_pipeline, load_pipeline, other_version
from dfl.recipe import Plain, public_name
from dfl.types import FAKE, REAL, FeatureOrigin, spec_from_plain, spec_to_plain

SCORES: Final = "scores.csv"
HEAD_MODEL: Final = "head.skops"
_LIGHT_BYTES: Final = 4 * 2**20
_LIGHT_PIECES: Final = 100
HEAD: Final = Kind(
    name="head",
    error=HeadError,
    document="head.json",
    format=3,
    files=(HEAD_MODEL,),
    loose=(SCORES,),
    make="fit one with `dfl heads`",
    remake="fit the head again",
    identity=("settings", "features"),
    same="a head with these settings on these features",
    other="another head",
)


def class_counts(label: npt.ArrayLike) -> dict[str, int]:
    """Count what a head learns from, as its description has it.

    Args:
        label: ``REAL`` or ``FAKE``, shape ``(N,)``.

    Returns:
        How many images are ``real`` and ``fake``.
    """
    label = np.asarray(label)
    return {"real": int((label == REAL).sum()), "fake": int((label == FAKE).sum())}


def settings(pipeline: Pipeline) -> list[Plain]:
    """Describe the steps of a pipeline, fitted or not, as plain data.

    Returns:
        ``step``, ``class`` and ``params`` of each step; an array stands as its shape and hash, the
        checkpoint of a `StoredEncoder` as its name and hash.

    Raises:
        CheckpointError: If the checkpoint of a `StoredEncoder` cannot be read.
    """
    return [
        {
            "step": name,
            "class": public_name(type(step)),
            "params": {key: _plain(value) for key, value in _params(step).items()},
        }
        for name, step in pipeline.steps
    ]


def save_head(
    head: SklearnHead,
    folder: Path,
    *,
    counts: dict[str, int] | None = None,
    overwrite: bool = False,
) -> None:
    """Store a fitted head.

    Args:
        head: The head.
        folder: The folder to make; it is complete or not there.
        counts: How many images it was trained on, ``real`` and ``fake``.
        overwrite: Whether a head that is there may be replaced.

    Raises:
        HeadError: If the head is not fitted, could not be loaded again, or the folder is taken.
    """
    with writing_head(head, folder, counts=counts, overwrite=overwrite):
        pass


@contextmanager
def writing_head(
    head: SklearnHead,
    folder: Path,
    *,
    counts: dict[str, int] | None = None,
    overwrite: bool = False,
) -> Iterator[Path]:
    """Store a fitted head together with what the block writes; otherwise as `save_head`.

    Yields:
        The unfinished folder, beside the final one; when the block ends, it takes its place.
    """
    head.check_fitted()
    with HEAD.making(folder, _description(head, counts or {}), overwrite=overwrite) as partial:
        dump_pipeline(head.pipeline, partial / HEAD_MODEL)
        yield partial


def write_head(head: SklearnHead, folder: Path, *, counts: Mapping[str, int]) -> None:
    """Write a fitted head into a folder that is being made, beside what else is in it.

    Args:
        head: The head.
        folder: The folder.
        counts: How many images it was trained on, ``real`` and ``fake``.

    Raises:
        HeadError: If the head could not be loaded again; then nothing of it is left there.
    """
    try:
        dump_pipeline(head.pipeline, folder / HEAD_MODEL)
    except HeadError:
        (folder / HEAD_MODEL).unlink(missing_ok=True)
        raise
    HEAD.describe(folder, _description(head, counts))


def copy_head(source: Path, folder: Path, *, overwrite: bool = False) -> None:
    """Copy the head of a folder that may hold other things, too.

    Args:
        source: The folder.
        folder: The folder to make; it is complete or not there.
        overwrite: Whether a head that is there may be replaced.

    Raises:
        HeadError: If there is no head, or the folder is taken.
    """
    with HEAD.making(folder, HEAD.read(source), overwrite=overwrite) as partial:
        shutil.copyfile(source / HEAD_MODEL, partial / HEAD_MODEL)


def is_light(pipeline: Pipeline) -> bool:
    """Say whether a fitted pipeline is small and quick to store; an ensemble of trees is not.

    Args:
        pipeline: The pipeline.
    """
    sizes = list(_sizes(pipeline))
    return len(sizes) <= _LIGHT_PIECES and sum(sizes) <= _LIGHT_BYTES


def _sizes(value: object) -> Iterator[int]:
    """Give the bytes of each array, and 0 for each object of a kind of its own."""
    if isinstance(value, np.ndarray):
        yield value.nbytes
    elif isinstance(value, dict):
        for item in value.values():
            yield from _sizes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sizes(item)
    elif isinstance(value, BaseEstimator):
        yield from _sizes(vars(value))
    elif not (value is None or isinstance(value, bool | int | float | str | np.generic)):
        yield 0


def check_replaceable(folder: Path, head: SklearnHead, *, overwrite: bool) -> None:
    """Refuse to write a head where that would lose something, before it is fitted.

    What a process that was killed while it replaced a head has left is put right first.

    Args:
        folder: Where it is to go.
        head: What is to go there, fitted or not.
        overwrite: Whether a head that is there may be replaced.

    Raises:
        HeadError: If a head is there and `overwrite` is false, or anything else is there.
    """
    if folder.parent.is_dir():
        with locked(folder):
            recover_folder(folder)
    HEAD.check_replaceable(folder, _description(head, {}), overwrite=overwrite)


def load_head(folder: Path) -> SklearnHead:
    """Load a stored head; nothing is built from it but types that skops or this package trusts.

    Args:
        folder: The head's folder.

    Returns:
        The head as it was when it was stored: its scores are equal bit for bit.

    Raises:
        HeadError: If a file is missing or damaged, another version of sklearn made it, or it holds
            a type that is not trusted.
    """
    document = HEAD.read(folder)
    spec = spec_from_plain(document["features"])
    made_by = _made_by(document)
    if made_by != version("scikit-learn"):  # first: another version's file may not even load
        raise HeadError(other_version(folder, made_by))
    model = folder / HEAD_MODEL
    if not model.is_file():
        raise HeadError(f"{model}: missing; fit the head again")
    if HEAD.damaged(folder, document):
        raise HeadError(
            f"{model}: damaged, its checksum is not the one in {HEAD.document}; fit the head again"
        )
    point = cast(dict[str, float], document["operating_point"])
    head = SklearnHead(
        load_pipeline(model),
        spec,
        FeatureOrigin(*(document.get(name) for name in FeatureOrigin._fields)),
        threshold=point["threshold"],
        calibration=(point["slope"], point["intercept"]),
    )
    head.check_fitted()
    return head


def _description(head: SklearnHead, counts: Mapping[str, int]) -> dict[str, Plain]:
    return {
        "format": HEAD.format,
        "features": spec_to_plain(head.spec),
        **head.origin._asdict(),
        "settings": settings(head.pipeline),
        "operating_point": {
            "threshold": head.threshold,
            "slope": head.calibration[0],
            "intercept": head.calibration[1],
        },
        "trained_on": dict(counts),
        "versions": dict(_versions()),
    }


@cache
def _versions() -> dict[str, Plain]:
    """Name what wrote a head; once a process, for a study writes thousands."""
    return {name: version(name) for name in ("dfl", "scikit-learn", "skops", "numpy")}


def _made_by(document: dict[str, Plain]) -> str:
    versions = document.get("versions")
    return (
        str(versions.get("scikit-learn")) if isinstance(versions, dict) else "of no known version"
    )


def _params(step: BaseEstimator | StoredEncoder) -> dict[str, object]:
    if not isinstance(step, StoredEncoder):
        return dict(step.get_params(deep=False))
    try:
        state = step.checkpoint.stat()
        digest = _hash_of_file(step.checkpoint, state.st_mtime_ns, state.st_size)
    except OSError as err:
        raise CheckpointError(
            f"{step.checkpoint}: no such checkpoint ({err.strerror}); name the .ckpt of a "
            "bottleneck that `dfl fit` trained"
        ) from err
    return {"checkpoint": f"{step.checkpoint.name} sha256:{digest}"}


@lru_cache
def _hash_of_file(file: Path, _changed: int, _size: int) -> str:
    return checksum_of(file)  # a study asks for each of its cells


def _plain(value: object) -> Plain:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {_hash(value)}"
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, BaseEstimator):
        value = {"class": public_name(type(value))} | value.get_params(deep=False)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return public_name(type(value))


def _hash(array: npt.NDArray[np.generic]) -> str:
    return sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
