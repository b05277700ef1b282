"""The feature store: a folder that holds what frozen backbones saw in the images of a manifest.

features.json   what made it: layers and fingerprints, preprocessing, backbones, precision,
                versions; the SHA-256 of the other files, and its own
manifest.csv    the manifest's rows, in the order of the matrices
<layer>.npy     float32 (N, D) for each layer, as clip.pooled.npy; numpy can memory-map it
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dfl.artifacts import Kind
from dfl.data.manifest.manifest import Manifest
from dfl.errors import FeatureError, ManifestError
from dfl.features.matrices import (
    FeatureRows,
    Matrix,
    MatrixFile,
    WrittenMatrix,
    inode_of,
    replaced,
)
from dfl.files import fresh
from dfl.recipe import Plain, Recipe
from dfl.types import (
    FeatureLayer,
    FeatureOrigin,
    FeatureSpec,
    spec_from_plain,
    spec_to_plain,
)

_MANIFEST: Final = "manifest.csv"
FEATURES: Final = Kind(
    name="feature folder",
    error=FeatureError,
    document="features.json",
    format=4,
    files=(_MANIFEST, "*.npy"),
    loose=("config.yaml",),
    make="make it with `dfl extract`",
    remake="extract again with --overwrite",
    same="these features",
    other="other features (other images, backbone, preprocessing or precision)",
)


@contextmanager
def new_store(
    out: Path,
    manifest: Manifest,
    *,
    spec: FeatureSpec,
    metadata: Recipe,
    overwrite: bool = False,
    workspace: Path | None = None,
) -> Iterator[Mapping[str, WrittenMatrix]]:
    """Make a feature folder, complete or not at all.

    Args:
        out: The folder.
        manifest: The rows of the matrices, in order.
        spec: The layers.
        metadata: What made the features, stored beside them.
        overwrite: Whether features that are there may be replaced.
        workspace: Where the unfinished folder is kept, on the same file system, by a caller that
            has locked `out`; by default it is locked here, and kept beside it.

    Yields:
        By layer, a matrix ``(N, D)`` to fill by assigning rows; when the block ends, the folder
        takes its place.

    Raises:
        FeatureError: If `out` is there and may not be replaced, or the disk is full.
    """
    description: Recipe = metadata | {
        "format": FEATURES.format,
        "rows": len(manifest),
        "root": manifest.root.as_posix(),
        "layers": spec_to_plain(spec),
    }
    room = sum(4 * layer.dim for layer in spec) * len(manifest)
    with FEATURES.making(
        out, description, overwrite=overwrite, workspace=workspace, room=room
    ) as partial:
        with ExitStack() as files:
            yield {
                layer.name: files.enter_context(
                    WrittenMatrix.create(_file(partial, layer), (len(manifest), layer.dim))
                )
                for layer in spec
            }
        manifest.write(partial / _MANIFEST)


@dataclass(frozen=True)
class FeatureStore:
    """A finished feature folder, opened for reading.

    Attributes:
        path: The folder.
        spec: The layers it holds.
        manifest: One row an image in a dataset pair, in the order of the matrices.
        metadata: What made it, as stored in ``features.json``.
        inode: Which folder it is, whatever comes to have its name.
    """

    path: Path
    spec: FeatureSpec
    manifest: Manifest
    metadata: dict[str, Plain]
    inode: tuple[int, int]

    @classmethod
    def open(cls, path: Path) -> "FeatureStore":
        """Open a folder that `dfl extract` or `dfl encode` has finished.

        Its description and its manifest are checked against their checksums, the matrices only for
        their size; `damaged` reads those, too.

        Args:
            path: The folder.

        Returns:
            The store; no matrix is read yet. The images themselves need not be there any more.

        Raises:
            FeatureError: If the folder is missing, unfinished, damaged or of another format.
        """
        inode = inode_of(path.stat()) if path.is_dir() else (0, 0)  # before anything is read
        document = FEATURES.read(path)
        spec = spec_from_plain(document["layers"])
        if FEATURES.damaged(path, document, only=(_MANIFEST,)):
            raise FeatureError(
                f"{path}: its manifest is missing or was changed; run `dfl extract` again"
            )
        try:
            manifest = Manifest.read(
                path / _MANIFEST, root=Path(str(document["root"])), check_paths=False
            )
        except ManifestError as err:
            raise FeatureError(
                f"{path}: its manifest is missing or damaged ({err}); run `dfl extract` again"
            ) from err
        store = cls(path=path, spec=spec, manifest=manifest, metadata=document, inode=inode)
        for layer in spec:
            store._memory_map(layer)
        store.check_unchanged()
        return store

    @classmethod
    def find(
        cls, path: Path, fingerprint: str, *, overwrite: bool, advice: str
    ) -> "FeatureStore | None":
        """Look for features, and read all of them to see whether they are whole.

        Args:
            path: The folder.
            fingerprint: What identifies the features wanted.
            overwrite: Whether other features may be replaced.
            advice: What to do where they may not.

        Returns:
            The store; None if there is work to do, as where the features are there but damaged.

        Raises:
            FeatureError: If the folder holds something else that may not be replaced.
        """
        is_own = FEATURES.is_of(path, fingerprint)
        if is_own and FEATURES.find(path, fingerprint) is not None:
            return cls.open(path)
        wanted: Recipe = {"fingerprint": fingerprint}
        FEATURES.check_replaceable(path, wanted, overwrite=overwrite or is_own, advice=advice)
        return None

    def origin(self, layers: Sequence[str] | None = None) -> FeatureOrigin:
        """Describe what makes layers: backbones that make no others, preprocessing, precision.

        Args:
            layers: As for `select`.

        Returns:
            As a head keeps it; None for the backbones where they are not known.

        Raises:
            FeatureError: As for `select`.
        """
        preprocess, backbones = self.metadata.get("preprocess"), self.metadata.get("backbones")
        run: Recipe = {
            key: self.metadata[key] for key in ("precision", "engine") if key in self.metadata
        }
        used: dict[str, list[Plain]] = {}
        for layer in self.select(layers):
            used.setdefault(layer.backbone, []).append(layer.layer)
        kept: Recipe = {}
        for name, names in used.items():
            recipe = backbones.get(name) if isinstance(backbones, dict) else None
            arguments = recipe.get("init_args") if isinstance(recipe, dict) else None
            if not isinstance(recipe, dict) or not isinstance(arguments, dict):
                return FeatureOrigin(None, preprocess, run or None)
            kept[name] = recipe | {"init_args": arguments | {"layers": names}}
        return FeatureOrigin(kept, preprocess, run or None)

    def check_unchanged(self) -> None:
        """Refuse a folder in whose place another one has been put since it was opened.

        Raises:
            FeatureError: If that is so: its files would not belong to these rows.
        """
        try:
            found = inode_of(self.path.stat())
        except OSError:
            found = None
        if found != self.inode:
            raise replaced(self.path)

    def note_root(self, root: Path) -> None:
        """Note where the images are now; for who has locked the folder.

        Args:
            root: The folder that the manifest's paths are relative to.
        """
        if root.as_posix() != self.metadata["root"]:
            FEATURES.note(self.path, self.metadata | {"root": root.as_posix()})

    def damaged(self) -> list[Path]:
        """Read all files and list those that are not what was written: a flipped bit is enough."""
        return FEATURES.damaged(self.path, self.metadata)

    def layers(self) -> list[str]:
        """List the names of the layers, in order."""
        return [layer.name for layer in self.spec]

    def select(self, layers: Sequence[str] | None = None) -> FeatureSpec:
        """Choose layers by name.

        Args:
            layers: Names of layers, or of backbones (all of a backbone's layers); None for all.

        Returns:
            Their specification, in the order asked for, the layers of a backbone side by side.

        Raises:
            FeatureError: If a name is unknown, or none is given.
        """
        if layers is None:
            return self.spec
        if not layers:
            raise FeatureError(
                f"layers: [] chooses nothing of {self.path}; it has: {', '.join(self.layers())}"
            )
        chosen: list[FeatureLayer] = []
        for name in layers:
            found = [p for p in self.spec if p.name == name or p.backbone == name]
            if not found:
                raise FeatureError(
                    f"{self.path} has no layer {name!r}; it has: {', '.join(self.layers())}"
                )
            chosen += [layer for layer in found if layer not in chosen]
        # one backbone's layers side by side, so that the backbones can make them again
        order = list(dict.fromkeys(layer.backbone for layer in chosen))
        return tuple(sorted(chosen, key=lambda layer: order.index(layer.backbone)))

    def matrix(
        self, layers: Sequence[str] | None = None, *, rows: npt.NDArray[np.int64] | None = None
    ) -> Matrix:
        """Read features.

        Args:
            layers: Which layers to concatenate; None for all.
            rows: Which rows, in which order; None for all.

        Returns:
            Features, shape ``(N, D)``, float32: a read-only memory map where one layer is read
            whole, a copy otherwise.

        Raises:
            FeatureError: If a layer is unknown, its file is damaged, or other features have taken
                the folder's place since it was opened.
        """
        blocks = [self._memory_map(layer) for layer in self.select(layers)]
        self.check_unchanged()
        if rows is not None:
            blocks = [block[rows] for block in blocks]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def rows(
        self,
        layers: Sequence[str] | None = None,
        rows: npt.NDArray[np.integer] | None = None,
    ) -> FeatureRows:
        """Choose rows, none of which is read yet.

        Args:
            layers: Which layers to concatenate; None for all.
            rows: Which rows, in which order; None for all.

        Raises:
            FeatureError: As for `matrix`.
        """
        files = [MatrixFile.of(self._memory_map(layer)) for layer in self.select(layers)]
        self.check_unchanged()  # after the files' own look: they are of the folder that was opened
        return FeatureRows(files, np.arange(len(self.manifest)) if rows is None else rows)

    def _memory_map(self, layer: FeatureLayer) -> Matrix:
        file = _file(self.path, layer)
        try:
            matrix: Matrix = fresh(lambda: np.load(file, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as err:
            raise FeatureError(f"{file}: missing or damaged; run `dfl extract` again") from err
        expected = (len(self.manifest), layer.dim)
        if matrix.shape != expected or matrix.dtype != np.float32:
            raise FeatureError(
                f"{file}: holds {matrix.dtype} {matrix.shape}, expected float32 {expected}; "
                "run `dfl extract` again"
            )
        size = matrix.offset + matrix.nbytes  # type: ignore[attr-defined]  # it is a memory map
        if file.stat().st_size != size:
            raise FeatureError(f"{file}: longer than it was; run `dfl extract` again")
        return matrix


def _file(folder: Path, layer: FeatureLayer) -> Path:
    return folder / f"{layer.name}.npy"
