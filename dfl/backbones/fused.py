"""Several named backbones as one."""

import re
from collections.abc import Mapping
from typing import Self, cast

import torch
from torch import Tensor, nn

from dfl.backbones.base import Backbone
from dfl.backbones.precision import SettledPrecision, cast_network
from dfl.errors import BackboneError
from dfl.types import FeatureSpec

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class FusedBackbone(nn.Module):
    """Named backbones side by side, each with its own normalisation and input size.

    Args:
        backbones: At least one, by name. Names go into layer names, file names and parameter names:
            letters, digits, ``_`` and ``-``, a letter first.

    Raises:
        BackboneError: If there is none, or a name cannot be used.
    """

    def __init__(self, backbones: Mapping[str, Backbone]) -> None:
        super().__init__()
        if not backbones:
            raise BackboneError("no backbones; give at least one as name: backbone")
        for name in backbones:
            # ModuleDict refuses the names of its own attributes
            if not _NAME.fullmatch(name) or hasattr(nn.ModuleDict, name) or name == "training":
                raise BackboneError(
                    f"backbone name {name!r} cannot be used; take letters, digits, _ and -, a "
                    "letter first, and no word of torch's modules such as 'type' or 'keys'"
                )
        if len({name.lower() for name in backbones}) < len(backbones):
            raise BackboneError(
                f"backbone names {sorted(backbones)} differ by case only; "
                "they become file names, so change one"
            )
        self.backbones = nn.ModuleDict(backbones)
        self.train(False)

    @property
    def spec(self) -> FeatureSpec:
        """The layers of ``features``: by backbone as given, then by layer as asked for."""
        return tuple(layer for name, backbone in self._items() for layer in backbone.spec(name))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Turn images into vectors, kept apart.

        Args:
            image: uint8, ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``.

        Returns:
            By layer name ``<backbone>.<layer>``: ``(B, D)``, float32.

        Raises:
            BackboneError: If the images have another dtype or shape.
        """
        return {
            f"{name}.{layer}": value
            for name, backbone in self._items()
            for layer, value in backbone(image).items()
        }

    def features(self, image: Tensor) -> Tensor:
        """Turn images into one vector each.

        Args:
            image: uint8, ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``.

        Returns:
            The layers of ``spec`` concatenated, ``(B, D)``, float32.

        Raises:
            BackboneError: If the images have another dtype or shape.
        """
        return torch.cat(list(self.forward(image).values()), dim=1)

    def cast_networks(self, precision: SettledPrecision) -> None:
        """Give the networks the format that a precision runs fastest on, for good.

        Args:
            precision: Nothing is cast for ``32-true``.

        Raises:
            BackboneError: If a backbone was cast to another precision before.
        """
        cast_to = None if precision == "32-true" else precision
        for name, backbone in self._items():
            if backbone.cast_to not in (None, cast_to):
                raise BackboneError(
                    f"{name}: was cast to {backbone.cast_to} before, and cannot run in "
                    f"{precision} any more; build it anew"
                )
        for _, backbone in self._items():
            if backbone.cast_to is None:
                cast_network(backbone.network, precision)
                backbone.cast_to = cast_to

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever is asked for: no dropout, BatchNorm statistics fixed."""
        return super().train(False)

    def _items(self) -> list[tuple[str, Backbone]]:
        """List the backbones with their names."""
        return [(name, cast(Backbone, module)) for name, module in self.backbones.items()]
