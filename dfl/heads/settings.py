"""What shapes a small module and its training on features, said once for task and estimator."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final

import numpy as np

from dfl.errors import HeadError
from dfl.types import FeatureSpec

_COUNT: Final = "a whole number of at least 1"
_LARGEST_SEED: Final = 2**32 - 1


@dataclass(eq=False, repr=False)
class TrainingSettings:
    """How AdamW goes through the rows of a matrix.

    Nothing is checked until `problem` is asked.
    """

    _: KW_ONLY
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    seed: int = 0

    @property
    def problem(self) -> str | None:
        """Name the first setting that cannot be used, its value and what is allowed."""
        if problem := self._unusable(["epochs", "batch_size"], ["learning_rate", "weight_decay"]):
            return problem
        if self.learning_rate == 0:
            return "learning_rate is 0, must be above 0"
        if not (isinstance(self.seed, int | np.integer) and 0 <= int(self.seed) <= _LARGEST_SEED):
            return f"seed is {self.seed!r}, must be a whole number up to {_LARGEST_SEED}"
        return None

    def _unusable(self, counts: Sequence[str], amounts: Sequence[str]) -> str | None:
        for name in counts:
            if not _is_count(value := getattr(self, name)):
                return f"{name} is {value!r}, must be {_COUNT}"
        for name in amounts:
            value = getattr(self, name)
            if not (isinstance(value, int | float | np.number) and 0 <= float(value) < math.inf):
                return f"{name} is {value!r}, must be a number of at least 0"
        return None


@dataclass(eq=False, repr=False)
class BottleneckSettings(TrainingSettings):
    """The settings of an autoencoder bottleneck, as `dfl.heads.estimators.autoencoder` tells them.

    Those of its training are by keyword, after its own.
    """

    code_dim: int = 64
    hidden_dims: Sequence[int] = (256,)
    tied: bool = False
    noise: float = 0.0
    kl_weight: float = 0.0
    classify_weight: float = 0.0

    @property
    def problem(self) -> str | None:
        """Name the first setting that cannot be used, its value and what is allowed."""
        if problem := super().problem:
            return problem
        if not isinstance(self.hidden_dims, list | tuple):
            return f"hidden_dims is {self.hidden_dims!r}, must be a list of widths"
        if not all(_is_count(width) for width in self.hidden_dims):
            return f"hidden_dims is {list(self.hidden_dims)!r}, each of them must be {_COUNT}"
        return self._unusable(["code_dim"], ["noise", "kl_weight", "classify_weight"])


@dataclass(eq=False, repr=False)
class RINESettings(TrainingSettings):
    """The settings of a head that weighs blocks, as `dfl.heads.estimators.rine` tells them.

    Those of its training are by keyword, after its own.
    """

    projection_dim: int = 128
    projection_layers: int = 2
    dropout: float = 0.5
    contrast_weight: float = 0.2
    _: KW_ONLY
    learning_rate: float = 1e-3

    @property
    def problem(self) -> str | None:
        """Name the first setting that cannot be used, its value and what is allowed."""
        counts = ["projection_dim", "projection_layers"]
        if problem := super().problem or self._unusable(counts, ["dropout", "contrast_weight"]):
            return problem
        if not self.dropout < 1:
            return f"dropout is {self.dropout!r}, must be a number of at least 0 and below 1"
        return None

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments of the network beside the number and width of its blocks."""
        names = ("projection_dim", "projection_layers", "dropout")
        return {name: getattr(self, name) for name in names}


def blocks_of(spec: FeatureSpec) -> int:
    """Count the layers that a head is to weigh.

    Args:
        spec: The layers of the features.

    Raises:
        HeadError: If they are less than two, or of several widths.
    """
    if len(spec) < 2 or len({layer.dim for layer in spec}) > 1:
        given = ", ".join(f"{layer.name} ({layer.dim})" for layer in spec) or "no layers"
        raise HeadError(
            f"RINE weighs layers of one width, and the features are {given}; choose two layers at "
            "least, such as clip.block5.cls and clip.block7.cls, and no reduction"
        )
    return len(spec)


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1
