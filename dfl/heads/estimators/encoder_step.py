"""The encoder of a trained bottleneck as an sklearn transformer, in numpy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from scipy.special import erf
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from dfl.errors import CheckpointError, HeadError
from dfl.types import FeatureSpec, spec_from_plain

Array = npt.NDArray[np.float32]

_EPS: Final = 1e-5  # what the bottleneck adds to the variance before the root
_ENCODER: Final = "model.encoder."
_MEAN: Final = "model.normalise.running_mean"
_VARIANCE: Final = "model.normalise.running_var"


@dataclass(eq=False, repr=False)
class BottleneckEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """The encoder of a trained autoencoder bottleneck, in numpy.

    It holds plain arrays, so it clones, stores without pickle and needs no torch to score. Fitting
    only checks the width: the encoder stays as it was trained.

    Args:
        mean: Of the training features, shape ``(D,)``.
        variance: Of the training features, shape ``(D,)``.
        weights: One matrix a linear layer, shape ``(out, in)``; exact GELU is between the layers.
        biases: One vector a linear layer, shape ``(out,)``.
        features: The layers it was trained on: ``name``, ``dim`` and ``fingerprint`` of each.
    """

    mean: Array
    variance: Array
    weights: Sequence[Array]
    biases: Sequence[Array]
    features: Sequence[Mapping[str, str | int]]

    @classmethod
    def from_checkpoint(cls, checkpoint: Path) -> Self:
        """Read the encoder from the checkpoint of a bottleneck task, of any kind.

        Of a variational code it gives the mean: the layer of its variance is none of the encoder's.

        Raises:
            CheckpointError: If the file is missing, damaged, or not a bottleneck's.
        """
        import torch  # only here: scoring with a stored head loads without torch

        if not checkpoint.is_file():
            raise CheckpointError(
                f"{checkpoint}: no such checkpoint; name the .ckpt of a bottleneck "
                "that `dfl fit` trained"
            )
        try:
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except Exception as err:  # torch.load fails in as many ways as a file can be damaged
            reason = str(err).split("\n", 1)[0]
            raise CheckpointError(f"{checkpoint}: not a readable checkpoint ({reason})") from err
        try:
            state = {
                key: value.float().numpy()
                for key, value in content["state_dict"].items()
                if key.startswith(_ENCODER) or key in (_MEAN, _VARIANCE)
            }
            layers = _layers(state)
            return cls(
                mean=state[_MEAN],
                variance=state[_VARIANCE],
                weights=[state[f"{_ENCODER}{i}.weight"] for i in layers],
                biases=[state[f"{_ENCODER}{i}.bias"] for i in layers],
                features=[
                    {
                        "name": str(layer["name"]),
                        "dim": int(layer["dim"]),
                        "fingerprint": str(layer["fingerprint"]),
                    }
                    for layer in content["dfl"]["features"]
                ],
            )
        except (KeyError, TypeError, AttributeError, ValueError) as err:
            raise CheckpointError(
                f"{checkpoint}: not the checkpoint of a bottleneck ({type(err).__name__}: {err}); "
                "train one with `dfl fit` and the model BottleneckTask"
            ) from err

    @property
    def feature_spec(self) -> FeatureSpec:
        """The features that it encodes."""
        return spec_from_plain([dict(layer) for layer in self.features])

    def fit(self, X: Array, y: npt.ArrayLike | None = None) -> Self:  # noqa: N803  # sklearn's names
        """Check the width of the features; nothing is learnt.

        Args:
            X: Features, shape ``(N, D)``.
            y: Ignored.

        Raises:
            HeadError: If D is not what the encoder was trained on.
        """
        self._check_width(X)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Array) -> Array:  # noqa: N803  # sklearn's name
        """Encode features.

        Args:
            X: Features, shape ``(N, D)``, as the backbone gives them.

        Returns:
            The code, shape ``(N, out of the last layer)``, float32.

        Raises:
            HeadError: If D is not what the encoder was trained on.
        """
        self._check_width(X)
        return encode_rows(X, self.mean, self.variance, self.weights, self.biases)

    def __sklearn_is_fitted__(self) -> bool:
        return True  # it was trained before

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _check_width(self, features: Array) -> None:
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            names = ", ".join(str(layer["name"]) for layer in self.features)
            raise HeadError(
                f"features of shape {features.shape} for a bottleneck trained on "
                f"{len(self.mean)} columns ({names}); choose these layers"
            )


def encode_rows(
    features: npt.NDArray[np.number],
    mean: Array,
    variance: Array,
    weights: Sequence[Array],
    biases: Sequence[Array],
    *,
    block: int = 8192,
) -> Array:
    """Encode features.

    Args:
        features: Shape ``(N, D)``; a memory map is read block by block.
        mean: Of the training features, shape ``(D,)``.
        variance: Of the training features, shape ``(D,)``.
        weights: One matrix a linear layer, shape ``(out, in)``; exact GELU is between the layers.
        biases: One vector a linear layer, shape ``(out,)``.
        block: Rows at a time: what lies between the layers need not fit in memory.

    Returns:
        The code, shape ``(N, out of the last layer)``, float32.
    """
    code = np.empty((len(features), len(biases[-1])), dtype=np.float32)
    spread = np.sqrt(variance + _EPS)
    for start in range(0, len(features), block):
        rows = slice(start, start + block)
        hidden = (np.asarray(features[rows], dtype=np.float32) - mean) / spread
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = (_gelu(hidden) if i else hidden) @ weight.T + bias
        code[rows] = hidden
    return code


def _gelu(hidden: Array) -> Array:
    root_half = np.float32(np.sqrt(0.5))
    return np.asarray(hidden * np.float32(0.5) * (1 + erf(hidden * root_half)), dtype=np.float32)


def _layers(state: Mapping[str, Array]) -> list[int]:
    """List the places of the linear layers; refuse weights that are no chain of layers."""
    found = {key.removeprefix(_ENCODER).split(".")[0] for key in state if key.startswith(_ENCODER)}
    layers = sorted(int(place) for place in found)
    if not layers or layers != list(range(0, 2 * len(layers), 2)):
        raise ValueError(f"linear layers at {layers}, expected 0, 2, 4, ... with GELU between them")
    width = len(state[_MEAN])
    for i in layers:
        weight = state[f"{_ENCODER}{i}.weight"]
        if weight.ndim != 2 or weight.shape[1] != width:
            raise ValueError(f"layer {i} has shape {weight.shape}, expected (out, {width})")
        width = weight.shape[0]
    return layers
