"""What a checkpoint says of itself: the head, its features, and how to make them again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import torch
from torch import Tensor

from dfl.errors import CheckpointError
from dfl.recipe import Plain, Recipe
from dfl.types import (
    FeatureOrigin,
    FeatureSpec,
    spec_difference,
    spec_from_plain,
    spec_to_plain,
)

CHECKPOINT_KEY: Final = "dfl"
"""The checkpoint's entry that holds a `HeadDescription`."""


@dataclass(frozen=True)
class HeadDescription:
    """What is stored beside the trained weights.

    Attributes:
        task: The class path of the task.
        architecture: The arguments that rebuild its head.
        features: The features it was trained on.
        origin: How to make them of an image, or how the network that is stored sees it.
        threshold: A score above it says fake; 0 unless validation chose another.
        calibration: Slope and intercept of the log-odds of fake in the score.
    """

    task: str
    architecture: Recipe
    features: FeatureSpec
    origin: FeatureOrigin = field(default_factory=FeatureOrigin)
    threshold: float = 0.0
    calibration: tuple[float, float] = (1.0, 0.0)

    def dump(self) -> dict[str, Plain]:
        """Give plain data, which loads without pickle."""
        return {
            "task": self.task,
            "architecture": self.architecture,
            "features": spec_to_plain(self.features),
            **self.origin._asdict(),
            **_point(self.threshold, self.calibration),
        }

    @classmethod
    def load(cls, checkpoint: Mapping[str, object]) -> "HeadDescription":
        """Read the description from a checkpoint.

        Raises:
            CheckpointError: If there is none, or it lacks something.
        """
        stored = checkpoint.get(CHECKPOINT_KEY)
        if not isinstance(stored, dict):
            raise CheckpointError(
                "the checkpoint was not written by a dfl task; train with `dfl fit`"
            )
        try:
            return cls(
                stored["task"],
                stored["architecture"],
                spec_from_plain(stored["features"]),
                FeatureOrigin(stored["backbones"], stored["preprocess"], stored.get("execution")),
                stored["threshold"],
                tuple(stored["calibration"]),
            )
        except (KeyError, TypeError) as err:
            raise CheckpointError(
                f"the checkpoint's description of itself is incomplete ({err}); "
                "train again with `dfl fit`"
            ) from err


def copy_with_operating_point(
    source: Path, target: Path, threshold: float, calibration: tuple[float, float]
) -> None:
    """Copy a checkpoint, and tell the copy at which score it says fake, and how sure it is.

    Args:
        source: A ``.ckpt`` file of a dfl task.
        target: Where the copy goes.
        threshold: As in `HeadDescription`.
        calibration: As in `HeadDescription`.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
    """
    checkpoint = read_checkpoint(source)
    about = cast(dict[str, Plain], checkpoint[CHECKPOINT_KEY])
    checkpoint[CHECKPOINT_KEY] = about | _point(threshold, calibration)
    torch.save(checkpoint, target)


def _point(threshold: float, calibration: tuple[float, float]) -> dict[str, Plain]:
    return {"threshold": threshold, "calibration": list(calibration)}


def check_spec(saved: FeatureSpec, present: FeatureSpec, *, saved_by: str, present_in: str) -> None:
    """Check that two sets of features are the same.

    Args:
        saved: What something was trained on.
        present: What it would be used on.
        saved_by: What `saved` belongs to, for the message.
        present_in: What `present` belongs to, for the message.

    Raises:
        CheckpointError: If a layer is missing, surplus, in another place, or made by another
            backbone.
    """
    if difference := spec_difference(saved, present):
        raise CheckpointError(
            f"{saved_by} does not fit {present_in}: {difference}; use the backbones, weights, "
            "input size and layers it was trained with"
        )


def check_state(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Check that saved tensors are those that a model has, by name and shape.

    Args:
        saved: The checkpoint's.
        own: The model's.

    Raises:
        CheckpointError: If one is missing, surplus, or of another shape.
    """
    difference = None
    if missing := sorted(own.keys() - saved.keys()):
        difference = f"{missing[0]} is missing"
    elif surplus := sorted(saved.keys() - own.keys()):
        difference = f"{surplus[0]} is not in this model"
    elif other := [key for key in own if saved[key].shape != own[key].shape]:
        shapes = tuple(saved[other[0]].shape), tuple(own[other[0]].shape)
        difference = f"{other[0]} has the shape {shapes[0]}, not {shapes[1]}"
    if difference:
        raise CheckpointError(
            f"the checkpoint's weights do not fit this model: {difference}; train again with "
            "this version of dfl"
        )


def read_checkpoint(path: Path) -> dict[str, object]:
    """Read a checkpoint without pickle.

    Args:
        path: A ``.ckpt`` file of a dfl task.

    Returns:
        Its content, on the CPU.

    Raises:
        CheckpointError: If it is missing, damaged, or not of a dfl task.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as err:
        raise CheckpointError(f"{path}: no such checkpoint") from err
    except Exception as err:  # torch.load fails in as many ways as a file can be damaged
        raise CheckpointError(f"{path}: not a checkpoint, or a damaged one") from err
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint:
        raise CheckpointError(f"{path}: not written by a dfl task; train with `dfl fit`")
    return checkpoint
