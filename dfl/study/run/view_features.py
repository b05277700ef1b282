"""Features of one view, put together from the folders of several backbones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dfl.errors import FeatureError
from dfl.features.origin import backbones_of
from dfl.features.rows import FeatureRows
from dfl.features.store import FeatureStore, Matrix
from dfl.recipe import Plain, Recipe
from dfl.types import FeatureSpec

__all__ = ["ViewFeatures"]


class ViewFeatures:
    """The features of a study's images under one view, one feature folder a backbone.

    Args:
        folders: Feature folders by the name of their backbone; their rows are the same.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = dict(folders)
        self._rows: dict[tuple[str, ...], FeatureRows] = {}
        self._stores: dict[str, FeatureStore] = {}

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

    def spec(self, parts: Sequence[str]) -> FeatureSpec:
        """Say what the columns of `matrix` are, in the order of `parts`."""
        return tuple(self._store(part).select([part])[0] for part in parts)

    def fingerprints(self, parts: Sequence[str]) -> list[Plain]:
        """Identify the features by what decides them: images, view, backbone and layer."""
        return [
            [str(self._store(part).metadata.get("fingerprint")), spec.fingerprint, spec.name]
            for part, spec in zip(parts, self.spec(parts), strict=True)
        ]

    def rows(self, parts: Sequence[str]) -> FeatureRows:
        """Give the features of all rows, none of which is read yet."""
        if (found := self._rows.get(tuple(parts))) is None:
            found = FeatureRows.beside(
                [FeatureRows.of(self._store(part), [part]) for part in parts]
            )
            self._rows[tuple(parts)] = found
        return found

    def matrix(self, parts: Sequence[str], rows: npt.NDArray[np.int64]) -> Matrix:
        """Read the features of some rows, shape ``(len(rows), D)``, float32."""
        return self.rows(parts).take(rows)

    def origin(self, parts: Sequence[str]) -> tuple[Plain, Plain]:
        """Describe the backbones of some parts, and the view, so that a head can be taken home."""
        backbones: Recipe = {}
        for name in dict.fromkeys(part.partition(".")[0] for part in parts):
            store = self.store(name)
            own = tuple(part for part in self.spec(parts) if part.name.partition(".")[0] == name)
            found = backbones_of(own, store.metadata.get("backbones"))
            if not isinstance(found, dict):
                return None, None
            backbones |= found
        return backbones, self._store(parts[0]).metadata.get("view")

    def _store(self, part: str) -> FeatureStore:
        return self.store(part.partition(".")[0])
