"""An autoencoder as an sklearn transformer: it trains with the pipeline that it stands in."""

from typing import Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from dfl.errors import HeadError
from dfl.heads.estimators.encoder_step import encode_rows
from dfl.heads.settings import BottleneckSettings
from dfl.types import FAKE, REAL

Array = npt.NDArray[np.float32]


class Autoencoder(BottleneckSettings, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Train a bottleneck within `fit`; its code takes the place of the features.

    The bottleneck is that of `BottleneckTask`, with the same loss. It trains on one CPU, without
    Lightning, equally for the same seed and number of threads, and reads a memory map batch by
    batch. Once fitted, it is plain arrays: torch is needed for `fit` alone.

    It is its own settings, those of `dfl.heads.estimators.autoencoder`.

    Attributes:
        mean_: Of the training features, shape ``(D,)``.
        variance_: Of the training features, shape ``(D,)``.
        weights_: One matrix a linear layer of the encoder, shape ``(out, in)``.
        biases_: One vector a linear layer of the encoder, shape ``(out,)``.
        reconstruction_error_: Squared error on the training rows as a fraction of their variance,
            both of standardised features: 0 is perfect, 1 no better than their mean.
        n_features_in_: D.
    """

    def fit(self, X: npt.NDArray[np.number], y: npt.ArrayLike | None = None) -> Self:  # noqa: N803  # sklearn's names
        """Train the autoencoder.

        Args:
            X: Features, shape ``(N, D)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``; looked at where `classify_weight` is positive.

        Raises:
            HeadError: If a setting is out of its range, labels are missing, or training diverged.
            ValueError: If the features are not finite or no matrix.
        """
        if self.problem:
            raise HeadError(f"the autoencoder's {self.problem}")
        features = validate_data(self, X, dtype="numeric")
        label = self._checked_labels(y, len(features)) if self.classify_weight > 0 else None
        # only here: scoring with a stored head loads without torch
        from dfl.heads.modules.bottleneck_training import (
            encoder_arrays,
            train_bottleneck,
            unexplained,
        )

        model = train_bottleneck(features, label, self)
        self.reconstruction_error_ = unexplained(model, features)
        if not np.isfinite(self.reconstruction_error_):
            raise HeadError(
                f"the autoencoder diverged with learning_rate {self.learning_rate}; lower it"
            )
        self.mean_, self.variance_, self.weights_, self.biases_ = encoder_arrays(model)
        return self

    def transform(self, X: npt.NDArray[np.number]) -> Array:  # noqa: N803  # sklearn's name
        """Encode features.

        Args:
            X: Features, shape ``(N, D)``.

        Returns:
            The code, shape ``(N, code_dim)``, float32.

        Raises:
            ValueError: If it is not fitted, or the features are not finite or of another width.
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype="numeric", reset=False)
        return encode_rows(features, self.mean_, self.variance_, self.weights_, self.biases_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _checked_labels(self, y: npt.ArrayLike | None, rows: int) -> npt.NDArray[np.int64]:
        if y is None:
            raise HeadError(
                f"classify_weight is {self.classify_weight}, so the autoencoder needs labels; "
                "give them, or classify_weight 0"
            )
        label = np.asarray(y)
        if label.shape != (rows,) or not np.isin(label, (REAL, FAKE)).all():
            raise HeadError(
                f"labels of shape {label.shape} for {rows} rows; the autoencoder needs a 0 (real) "
                "or 1 (fake) for each, or classify_weight 0"
            )
        return label.astype(np.int64)
