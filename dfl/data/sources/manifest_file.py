"""The images of a manifest that somebody wrote."""

from dataclasses import dataclass
from pathlib import Path

from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.files import checksum_of
from dfl.recipe import Plain


@dataclass
class ManifestFile(Source):
    """The images of a manifest that somebody wrote.

    Its splits are kept; images without one are dealt one, and where a dataset has training but no
    validation images, its training part gives some up (none if ``val_fraction`` is 0).

    Args:
        path: A ``.csv`` or ``.parquet`` file; relative to the working directory.
        root: The folder of its relative paths; the file's own by default.
    """

    path: Path
    root: Path | None = None

    @property
    def title(self) -> str:
        """The name of the file."""
        return Path(self.path).stem

    def scan(self) -> Manifest:
        """Read the table and check it; see ``Manifest.read``."""
        return Manifest.read(self.path, self.root)

    def recipe(self) -> Plain:
        """Describe the table by its content, so that one that was edited is split anew.

        The root counts as well, since other files may have the same paths there.
        """
        path = Path(self.path)
        content = checksum_of(path) if path.is_file() else None
        return ["ManifestFile", content, Path(self.root or path.parent).as_posix()]
