"""Of what kind training images are, for the steps of a pipeline that ask for it in `fit`."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from dfl.data.manifest.provenance import PROVENANCE, given_provenance, with_provenance
from dfl.errors import HeadError
from dfl.types import FAKE, FeatureSpec

Kinds = npt.NDArray[np.object_]
By = Literal["family", "generator", "dataset"]

PROVENANCE_COLUMNS: Final = ("generator", *PROVENANCE, "dataset")
"""The columns, texts, of the table that a head may ask for; a row an image, as the features are."""

_COLUMNS: Final = {
    "family": ("source", "family"),
    "generator": ("source", "generator"),
    "dataset": ("dataset", "dataset"),
}
"""What names the kind of a photograph and that of a fake; ``REAL`` and ``FAKE`` index them."""


def provenance_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Take what heads may ask for from the rows of a manifest; see `with_provenance`.

    Args:
        frame: Rows of a manifest.

    Returns:
        The columns `PROVENANCE_COLUMNS` of the same rows.
    """
    return with_provenance(frame)[list(PROVENANCE_COLUMNS)]


def unsaid(frame: pd.DataFrame) -> str | None:
    """Say in one line what stands in for what the rows of a manifest lack; None if nothing is.

    Args:
        frame: Rows of a manifest.
    """
    fake = (frame["label"] == FAKE).to_numpy()
    lacking = {
        column: int((given_provenance(frame, column) == "")[rows].sum())
        for column, rows in (("family", fake), ("source", ~fake))
    }
    stands_in = {
        "family": "of the fakes have no family: their generator stands for it",
        "source": "of the photographs have no source: their datasets stand for it",
    }
    said = [f"{count:,} {stands_in[column]}" for column, count in lacking.items() if count]
    return "; ".join(said) or None


def kinds_of(label: npt.NDArray[np.int64], provenance: pd.DataFrame | None, by: By) -> Kinds:
    """Name the kind of each image.

    Args:
        label: ``REAL`` or ``FAKE``, shape ``(N,)``.
        provenance: The columns `PROVENANCE_COLUMNS` of the same images; None if all images of a
            class are of one kind.
        by: ``family``: a fake's family, a photograph's source; ``generator``: a fake's generator, a
            photograph's source; ``dataset``: the dataset of both.

    Returns:
        Texts, shape ``(N,)``.

    Raises:
        HeadError: If `by` is none of these, or a table lacks a column, a row, or the name of a
            kind.
    """
    if by not in _COLUMNS:
        raise HeadError(f"by is {by!r}: choose {', '.join(_COLUMNS)}")
    if provenance is None:
        return np.full(len(label), "", dtype=object)
    if len(provenance) != len(label):
        raise HeadError(f"provenance of {len(provenance)} images for {len(label)}; give a row each")
    real, fake = (_texts(provenance, column) for column in _COLUMNS[by])
    kinds = np.where(label == FAKE, fake, real)
    if (unnamed := int((kinds == "").sum())) > 0:
        raise HeadError(
            f"{unnamed} of {len(kinds)} images have no {' or '.join(dict.fromkeys(_COLUMNS[by]))} "
            "in the provenance; name it"
        )
    return kinds


def _texts(provenance: pd.DataFrame, column: str) -> Kinds:
    if column not in provenance:
        raise HeadError(
            f"provenance: no column {column!r}; it needs {', '.join(PROVENANCE_COLUMNS)}"
        )
    return provenance[column].to_numpy(dtype=object)


def asks_for(estimator: object, parameter: str) -> bool:
    """Whether `fit` of an estimator, or of what it wraps, has a parameter.

    Args:
        estimator: The estimator.
        parameter: The name of the parameter.
    """
    inner = getattr(estimator, "estimator", None)
    return bool(has_fit_parameter(estimator, parameter)) or (
        inner is not None and asks_for(inner, parameter)
    )


def takes_weights(estimator: object) -> bool:
    """Whether images can count more or less in `fit` of an estimator, or of what it wraps.

    Args:
        estimator: The estimator.
    """
    inner = getattr(estimator, "estimator", None)
    if inner is not None:
        return takes_weights(inner)
    return bool(has_fit_parameter(estimator, "sample_weight"))


def fit_parameters(
    pipeline: Pipeline, spec: FeatureSpec, provenance: pd.DataFrame | None
) -> dict[str, object]:
    """Gather what the steps of a pipeline ask for in `fit` beside features and labels.

    Args:
        pipeline: The pipeline.
        spec: The layers of the features, for a step whose `fit` has a parameter ``spec``.
        provenance: Of what kind the images are, for one that has ``provenance``; None if that is
            not known.

    Returns:
        Keyword arguments of the pipeline's `fit`.

    Raises:
        HeadError: If a step asks for what is not known.
    """
    known = {"spec": spec, "provenance": provenance}
    asked: dict[str, object] = {
        f"{name}__{parameter}": value
        for name, step in pipeline.steps
        for parameter, value in known.items()
        if asks_for(step, parameter)
    }
    for name, value in asked.items():
        if value is None:
            step = pipeline.named_steps[name.rpartition("__")[0]]
            raise HeadError(
                f"{type(step).__name__} learns of what kind each image is; give fit the columns "
                f"{', '.join(PROVENANCE_COLUMNS)} of the images as provenance"
            )
    return asked


def takes_provenance(pipelines: Sequence[Pipeline]) -> bool:
    """Whether a pipeline of several asks of what kind images are."""
    return any(asks_for(step, "provenance") for each in pipelines for _, step in each.steps)
