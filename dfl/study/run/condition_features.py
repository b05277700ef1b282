"""Features of one condition, put together from the folders of several backbones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dfl.errors import FeatureError
from dfl.features.matrices import FeatureRows, Matrix
from dfl.features.store import FeatureStore
from dfl.recipe import Plain, Recipe
from dfl.types import FeatureOrigin, FeatureSpec, backbone_of


class ConditionFeatures:
    """The features of a study's images under one condition, one feature folder a backbone.

    A folder is opened when it is first asked for; a pickled copy opens them anew.

    Args:
        folders: Feature folders by the name of their backbone; their rows are the same.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = dict(folders)
        self._rows: dict[tuple[str, ...], FeatureRows] = {}
        self._stores: dict[str, FeatureStore] = {}

    def __reduce__(self) -> tuple[type["ConditionFeatures"], tuple[dict[str, Path]]]:
        return ConditionFeatures, (self.folders,)

    def store(self, name: str) -> FeatureStore:
        """Give the feature folder of a backbone, opened when it is first asked for.

        Raises:
            FeatureError: If it cannot be read, or its rows differ from those of another one.
        """
        if name not in self._stores:
            store = FeatureStore.open(self.folders[name])
            first = next(iter(self._stores.values()), store)
            rows, known = (each.manifest.frame[["path", "dataset"]] for each in (store, first))
            if not rows.equals(known):
                raise FeatureError(
                    f"{store.path} has other rows than {first.path}; delete both and run again"
                )
            self._stores[name] = store
        return self._stores[name]

    def spec(self, layers: Sequence[str]) -> FeatureSpec:
        """Say what the columns of `matrix` are, in the order of `layers`."""
        return tuple(self._store(layer).select([layer])[0] for layer in layers)

    def fingerprints(self, layers: Sequence[str]) -> list[Plain]:
        """Identify the features by what decides them: images, condition, backbone and layer."""
        return [
            [str(self._store(layer).metadata.get("fingerprint")), spec.fingerprint, spec.name]
            for layer, spec in zip(layers, self.spec(layers), strict=True)
        ]

    def rows(self, layers: Sequence[str]) -> FeatureRows:
        """Give the features of all rows, none of which is read yet."""
        if (found := self._rows.get(tuple(layers))) is None:
            found = FeatureRows.beside([self._store(layer).rows([layer]) for layer in layers])
            self._rows[tuple(layers)] = found
        return found

    def matrix(self, layers: Sequence[str], rows: npt.NDArray[np.int64]) -> Matrix:
        """Read the features of some rows, shape ``(len(rows), D)``, float32."""
        return self.rows(layers).take(rows)

    def origin(self, layers: Sequence[str]) -> FeatureOrigin:
        """Describe what makes some layers, for a head taken home."""
        backbones: Recipe = {}
        first = self._store(layers[0]).origin([layers[0]])
        for name in dict.fromkeys(backbone_of(layer) for layer in layers):
            own = [layer for layer in layers if backbone_of(layer) == name]
            found = self.store(name).origin(own).backbones
            if not isinstance(found, dict):
                return FeatureOrigin()
            backbones |= found
        return first._replace(backbones=backbones)

    def _store(self, layer: str) -> FeatureStore:
        return self.store(backbone_of(layer))
