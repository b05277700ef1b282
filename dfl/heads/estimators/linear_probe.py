"""The linear probe as an sklearn classifier: it trains by gradient descent, in a pipeline."""

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted, validate_data

from dfl.errors import HeadError
from dfl.heads.estimators.margin import MarginClassifier
from dfl.heads.settings import TrainingSettings
from dfl.types import FAKE, REAL

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float64]


@dataclass(eq=False, repr=False)
class LinearProbe(TrainingSettings, MarginClassifier):
    """Train one linear layer by AdamW on the binary cross-entropy of batches.

    The head is that of `LinearProbeTask`, with the same loss. It trains on one CPU, without
    Lightning, equally for the same seed and number of threads, and reads a memory map batch by
    batch. Once fitted, it is plain arrays: torch is needed for `fit` alone.

    It is its own settings, those of `dfl.heads.estimators.linear_probe`.

    Attributes:
        classes_: ``[REAL, FAKE]``.
        coef_: Weight of each column, its standardisation included, shape ``(D,)``.
        intercept_: The bias.
        n_features_in_: D.
    """

    _: KW_ONLY
    epochs: int = 50
    learning_rate: float = 1e-3
    weight_decay: float = 0.1

    def fit(
        self,
        X: npt.NDArray[np.number],  # noqa: N803  # sklearn's name
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Train the layer.

        Args:
            X: Features, shape ``(N, D)``.
            y: ``REAL`` or ``FAKE``, shape ``(N,)``.
            sample_weight: What the loss of each row is multiplied by, shape ``(N,)``; 1 by default.

        Raises:
            HeadError: If a setting is out of its range, or training diverged.
            ValueError: If the features are not finite or no matrix.
        """
        if self.problem:
            raise HeadError(f"the linear probe's {self.problem}")
        features, label = validate_data(self, X, y, dtype=np.float32)
        # only here: scoring with a stored head loads without torch
        from dfl.heads.modules.linear_training import train_linear

        weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float32)
        head = train_linear(features, label, self, weight=weight)
        normalise = head.normalise
        deviation = np.sqrt(_array(normalise.running_var) + normalise.eps)
        self.coef_ = _array(head.linear.weight)[0] / deviation
        shift = _array(normalise.running_mean) @ self.coef_
        self.intercept_ = float(_array(head.linear.bias)[0] - shift)
        if not (np.isfinite(self.coef_).all() and np.isfinite(self.intercept_)):
            raise HeadError(
                f"the linear probe diverged with learning_rate {self.learning_rate}; lower it"
            )
        self.classes_ = np.array([REAL, FAKE])
        return self

    def decision_function(self, X: npt.NDArray[np.number]) -> Array:  # noqa: N803  # sklearn's name
        """Score images.

        Args:
            X: Features, shape ``(N, D)``.

        Returns:
            Logits, shape ``(N,)``, above 0 for fake.
        """
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, reset=False) @ self.coef_ + self.intercept_)


def _array(tensor: "Tensor") -> Array:
    return tensor.detach().numpy().astype(np.float64)
