"""The head that weighs blocks as an sklearn classifier: it trains by gradient descent."""

from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted, validate_data

from dfl.errors import HeadError
from dfl.heads.estimators.margin import MarginClassifier
from dfl.heads.settings import RINESettings, blocks_of
from dfl.types import FAKE, REAL, FeatureSpec

Array = npt.NDArray[np.float32]

_ROWS = 4096  # at a time: a projection of all blocks need not fit in memory


class RINE(RINESettings, MarginClassifier):
    """Learn which blocks of a backbone tell real from fake (Koutlis and Papadopoulos, ECCV 2024).

    The head is that of `RINETask`, with the same loss. It trains on one CPU, without Lightning,
    equally for the same seed and number of threads, and reads a memory map batch by batch. Once
    fitted, it is plain arrays: torch is needed for `fit` alone.

    It is its own settings, those of `dfl.heads.estimators.rine`.

    Attributes:
        classes_: ``[REAL, FAKE]``.
        importance_: Weight of each block in each dimension of the projection, summing to 1 over the
            blocks, shape ``(n, P)``.
        mean_: Of the training features, shape ``(D,)``.
        deviation_: Of the training features, shape ``(D,)``.
        layers_: Weights ``(out, in)`` and biases of all linear layers: of the first projection, of
            the second one, of the classifier.
        n_features_in_: D.
    """

    def fit(
        self,
        X: npt.NDArray[np.number],  # noqa: N803  # sklearn's name
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        spec: FeatureSpec = (),
    ) -> Self:
        """Train the head.

        Args:
            X: Features, shape ``(N, D)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``.
            sample_weight: What the loss of each row is multiplied by, shape ``(N,)``; 1 by default.
            spec: Which layers the columns are: two at least, of one width.

        Raises:
            HeadError: If a setting is out of its range, the layers cannot be weighed, or training
                diverged.
            ValueError: If the features are not finite or no matrix.
        """
        if self.problem:
            raise HeadError(f"the RINE head's {self.problem}")
        features, label = validate_data(self, X, y, dtype=np.float32)
        blocks = blocks_of(spec)
        if (dim := sum(layer.dim for layer in spec)) != features.shape[1]:
            raise HeadError(
                f"features of {features.shape[1]} columns, and layers of {dim}: RINE takes "
                "features as they come, without scaling or a reduction before it"
            )
        # only here: scoring with a stored head loads without torch
        from dfl.heads.modules.rine_training import linear_layers, train_rine
        from dfl.heads.modules.training import array

        weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float32)
        head = train_rine(features, label.astype(np.int64), self, blocks=blocks, weight=weight)
        normalise = head.normalise
        self.mean_ = array(normalise.running_mean)
        self.deviation_ = np.sqrt(array(normalise.running_var) + np.float32(normalise.eps))
        self.importance_ = softmax(array(head.importance), axis=0)
        self.layers_ = [
            pair
            for part in (head.project, head.refine, head.classify)
            for pair in linear_layers(part)
        ]
        if not all(np.isfinite(values).all() for pair in self.layers_ for values in pair):
            raise HeadError(
                f"the RINE head diverged with learning_rate {self.learning_rate}; lower it"
            )
        self.classes_ = np.array([REAL, FAKE])
        return self

    def decision_function(self, X: npt.NDArray[np.number]) -> npt.NDArray[np.float64]:  # noqa: N803  # sklearn's name
        """Score images of features ``(N, D)``; logits, shape ``(N,)``, above 0 for fake."""
        check_is_fitted(self)
        features = validate_data(self, X, dtype=np.float32, reset=False)
        score = np.empty(len(features))
        depth = self.projection_layers
        *hidden, (weight, bias) = self.layers_
        for start in range(0, len(features), _ROWS):
            rows = (features[start : start + _ROWS] - self.mean_) / self.deviation_
            tokens = rows.reshape(len(rows), len(self.importance_), -1)  # (B, n, width)
            projected = _relu_layers(tokens, hidden[:depth])
            pooled = (self.importance_ * projected).sum(axis=1)
            top = _relu_layers(pooled, hidden[depth:])
            score[start : start + _ROWS] = (top @ weight.T + bias)[:, 0]
        return score


def _relu_layers(values: Array, layers: list[tuple[Array, Array]]) -> Array:
    for weight, bias in layers:
        values = np.maximum(values @ weight.T + bias, 0)
    return values
