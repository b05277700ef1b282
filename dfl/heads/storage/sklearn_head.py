"""An sklearn pipeline that knows its features, and scores with a margin whose threshold is 0."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from dfl.errors import HeadError, one_line
from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.heads.estimators.margin import margin
from dfl.heads.estimators.provenance import fit_parameters, takes_weights
from dfl.heads.out_of_core.fit import fit_streamed
from dfl.heads.out_of_core.stream import RowReader, Stream, check_finite
from dfl.types import FAKE, REAL, FeatureOrigin, FeatureSpec, spec_difference

logger = logging.getLogger(__name__)

_ALIKE: Final = (
    "the features of the images of a class are all but equal; look whether the images, or the "
    "layer, are the right ones"
)


@dataclass(frozen=True)
class SklearnHead:
    """A pipeline and the features that it takes.

    Attributes:
        pipeline: Ends in a classifier of `dfl.heads.estimators`, perhaps behind a reduction from
            there.
        spec: The layers whose concatenation it takes.
        origin: How to make them of an image.
        threshold: A score above it says fake; 0 is the classifier's own.
        calibration: Slope and intercept of the log-odds of fake in the score, as of
            `dfl.evaluation.platt_scaling`.
    """

    pipeline: Pipeline
    spec: FeatureSpec
    origin: FeatureOrigin = field(default_factory=FeatureOrigin)
    threshold: float = 0.0
    calibration: tuple[float, float] = (1.0, 0.0)

    @property
    def dim(self) -> int:
        """How many columns it takes."""
        return sum(layer.dim for layer in self.spec)

    def fit(
        self,
        features: npt.NDArray[np.float32],
        label: npt.ArrayLike,
        provenance: pd.DataFrame | None = None,
        weight: npt.NDArray[np.float64] | None = None,
    ) -> "SklearnHead":
        """Fit a copy of the pipeline.

        Args:
            features: Shape ``(N, D)``, D as in `spec`.
            label: ``REAL`` or ``FAKE``, shape ``(N,)``, both of them present.
            provenance: Of what kind the images are, as `provenance_of` gives it; a pipeline that
                does not ask for it is not told.
            weight: How much each row counts for the classifier, shape ``(N,)``; 1 by default, and
                for a classifier that takes no weights.

        Returns:
            A fitted head, whose threshold and calibration are those of a new one; this one stays
            as it is.

        Raises:
            HeadError: If the features or labels cannot be used, a bottleneck was trained on other
                features, the pipeline asks for the provenance and there is none, or sklearn refuses
                a setting.
        """
        self._check(features)
        truth = _checked_labels(label, len(features))
        check_encoders(self.pipeline, self.spec)
        pipeline: Pipeline = clone(self.pipeline)
        asked = fit_parameters(pipeline, self.spec, provenance)
        if weight is not None and takes_weights(pipeline[-1]):
            asked[f"{pipeline.steps[-1][0]}__sample_weight"] = weight
        with _refusals_reported(pipeline):
            pipeline.fit(features, truth, **asked)
        return SklearnHead(pipeline, self.spec, self.origin)

    def fit_streamed(
        self,
        stream: Stream,
        *,
        scratch: Path,
        provenance: pd.DataFrame | None = None,
        weight: npt.NDArray[np.float64] | None = None,
    ) -> "SklearnHead":
        """Fit a copy of the pipeline in passes over rows that need not fit in memory.

        Args:
            stream: Features of D columns, as in `spec`, with their labels.
            scratch: Folder for what a reduction makes of them; nothing stays there.
            provenance: As of `fit`.
            weight: As of `fit`.

        Returns:
            A fitted head, as of `fit`.

        Raises:
            HeadError: As for `fit`.
        """
        self._check_width(stream.source.shape)
        _checked_labels(stream.label, stream.n_rows)
        check_encoders(self.pipeline, self.spec)
        if not takes_weights(self.pipeline[-1]):
            weight = None
        with _refusals_reported(self.pipeline):
            pipeline = fit_streamed(
                self.pipeline,
                stream,
                scratch=scratch,
                spec=self.spec,
                provenance=provenance,
                weight=weight,
            )
        return SklearnHead(pipeline, self.spec, self.origin)

    def score_rows(self, rows: RowReader) -> npt.NDArray[np.float64]:
        """Score images block by block, as `score` does.

        Args:
            rows: Features, shape ``(N, D)``, which need not fit in memory.

        Returns:
            Scores, shape ``(N,)``, float64, higher = fake.

        Raises:
            HeadError: As for `score`.
        """
        self._check_width(rows.shape)
        self.check_fitted()
        scores = np.empty(rows.shape[0])
        start = 0
        for block in rows.blocks():
            check_finite(block, start)
            scores[start : start + len(block)] = self.score(block)
            start += len(block)
        return scores

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Score images.

        The score is the estimator's `margin`: ``score > 0`` where it predicts fake; a tie is real.

        Args:
            features: Shape ``(N, D)``, D as in `spec`.

        Returns:
            Scores, shape ``(N,)``, float64, higher = fake.

        Raises:
            HeadError: If the features do not fit or the head is not fitted.
        """
        self._check(features)
        self.check_fitted()
        if not len(features):
            return np.empty(0)  # sklearn refuses an empty matrix
        try:
            score = _margin(self.pipeline, features)
        except ValueError as err:
            raise HeadError(f"{_name(self.pipeline)} cannot score: {one_line(err)}") from err
        if not np.isfinite(score).all():
            raise HeadError(f"{_name(self.pipeline)} gives scores that are not finite: {_ALIKE}")
        return score

    def check_fitted(self) -> None:
        """Refuse a pipeline that is not fitted, on real and fake images and on D columns.

        Raises:
            HeadError: If it is not.
        """
        classes = getattr(self.pipeline[-1], "classes_", None)
        if classes is None:
            raise HeadError(f"{_name(self.pipeline)} is not fitted; fit it with `dfl heads`")
        if list(classes) != [REAL, FAKE]:
            raise HeadError(
                f"{_name(self.pipeline)} knows the classes {list(classes)}, not [0, 1]; "
                "fit it with `dfl heads`"
            )
        if (width := getattr(self.pipeline, "n_features_in_", self.dim)) != self.dim:
            raise HeadError(
                f"{_name(self.pipeline)} is fitted on {width} columns, its layers have {self.dim}; "
                "fit it again"
            )

    def _check_width(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != self.dim:
            names = ", ".join(layer.name for layer in self.spec)
            raise HeadError(
                f"features of shape {shape} for a head that takes {self.dim} columns "
                f"({names}); choose these layers"
            )

    def _check(self, features: npt.NDArray[np.float32]) -> None:
        self._check_width(features.shape)
        finite = np.isfinite(features).all(axis=1)
        if not finite.all():
            raise HeadError(
                f"features of row {int(np.argmin(finite))} are not finite; "
                "extract them again, in float32"
            )


def _margin(pipeline: Pipeline, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    inner = pipeline[:-1].transform(features) if len(pipeline) > 1 else features
    return margin(pipeline[-1], inner)


@contextmanager
def _refusals_reported(pipeline: Pipeline) -> Iterator[None]:
    """Say in one line why a pipeline cannot be fitted, or that it did not converge."""
    try:
        with _convergence_logged(_name(pipeline)):
            yield
    except ValueError as err:
        raise HeadError(f"{_name(pipeline)} cannot be fitted: {one_line(err)}") from err
    except IndexError as err:  # sklearn's LDA takes the first of the directions that are left
        raise HeadError(f"{_name(pipeline)} cannot be fitted: {_ALIKE}") from err


@contextmanager
def _convergence_logged(name: str) -> Iterator[None]:
    """Turn sklearn's paragraph on convergence into one line of the log; other warnings pass."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            logger.warning("%s did not converge; raise max_iter or lower C", name)
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _checked_labels(label: npt.ArrayLike, rows: int) -> npt.NDArray[np.int64]:
    truth = np.asarray(label)
    if truth.shape != (rows,):
        raise HeadError(
            f"labels of shape {truth.shape} for {rows} rows of features; give one a row"
        )
    odd = truth[~np.isin(truth, (REAL, FAKE))]
    if odd.size:
        raise HeadError(f"a label is {odd[0]}; train on 0 for real and 1 for fake only")
    fakes = int(np.count_nonzero(truth == FAKE))
    if not 0 < fakes < rows:
        raise HeadError(
            f"the training rows hold {rows - fakes} real and {fakes} fake images; a head needs both"
        )
    return truth.astype(np.int64)


def check_encoders(pipeline: Pipeline, spec: FeatureSpec) -> None:
    """Refuse a trained bottleneck in front of other features than its own.

    Args:
        pipeline: The pipeline, fitted or not.
        spec: The features it is to take.

    Raises:
        HeadError: If a bottleneck in it was trained on other ones.
    """
    for _, step in pipeline.steps:
        if isinstance(step, BottleneckEncoder) and (
            difference := spec_difference(step.feature_spec, spec)
        ):
            raise HeadError(
                f"the bottleneck does not fit the features: {difference}; "
                "choose the layers it was trained on"
            )


def _name(pipeline: Pipeline) -> str:
    return type(pipeline[-1]).__name__
