"""Images in WebDataset shards."""

from dataclasses import dataclass, field
from pathlib import Path

from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.data.sources.fields import Fields, records_manifest
from dfl.data.sources.packed import find_files
from dfl.data.sources.tar_records import tar_records


@dataclass
class WebDataset(Source):
    """Images in WebDataset shards: tars in which files of one key are one sample.

    The tars are not unpacked, and read in any order at the same speed; they must not be compressed.

    Args:
        root: The folder under which the shards are; relative to the working directory.
        files: The shards, or patterns of them (``train-*.tar``); all below the root by default.
        image: The ending of the images, such as ``jpg``; any that is known by default.
        fields: Which files of a sample say what its image is; ``cls`` with 0 or real, 1 or fake by
            default.
        name: The dataset's name, which is also the generator of fakes where none is given; the
            root's by default.
    """

    root: Path
    files: list[str] = field(default_factory=lambda: ["**/*.tar"])
    image: str | None = None
    fields: Fields = field(default_factory=lambda: Fields(label="cls"))
    name: str | None = None

    @property
    def title(self) -> str:
        """The dataset's name."""
        return self.name or Path(self.root).resolve().name or "images"

    def scan(self) -> Manifest:
        """List the images, in the order of the shards and of their keys."""
        root, asked = Path(self.root), self.fields.names()
        records = (
            tar_records(root / file, file, image=self.image, fields=asked)
            for file in find_files(root, self.files)
        )
        is_named = self.name is not None
        return records_manifest(records, self.fields, dataset=self.title, root=root, named=is_named)
