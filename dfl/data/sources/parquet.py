"""Images in the rows of Parquet files."""

from dataclasses import dataclass, field
from pathlib import Path

from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.base import Source
from dfl.data.sources.fields import Fields, records_manifest
from dfl.data.sources.packed import find_files
from dfl.data.sources.table_records import table_records


@dataclass
class Parquet(Source):
    """Images in the rows of Parquet files, as bytes or as Hugging Face writes them.

    They are read fast from front to back. In random order each image costs its whole row group,
    unless the groups of all files fit in what is held (four files, two groups of up to 64 MiB
    each): of larger sets ``extract`` the features, and train on those.

    Args:
        root: The folder under which the files are; relative to the working directory.
        files: The files, or patterns of them (``train-*.parquet``); all below the root by default.
        image: The column of images; the only one that can hold any by default.
        fields: Which columns say what an image is; ``label`` with 0 or real, 1 or fake by default.
        name: The dataset's name, which is also the generator of fakes where none is given; the
            root's by default.
    """

    root: Path
    files: list[str] = field(default_factory=lambda: ["**/*.parquet"])
    image: str | None = None
    fields: Fields = field(default_factory=Fields)
    name: str | None = None

    @property
    def title(self) -> str:
        """The dataset's name."""
        return self.name or Path(self.root).resolve().name or "images"

    def scan(self) -> Manifest:
        """List the images, in the order of the files and of their rows."""
        root, asked = Path(self.root), self.fields.names()
        records = (
            table_records(root / file, file, image=self.image, fields=asked)
            for file in find_files(root, self.files)
        )
        is_named = self.name is not None
        return records_manifest(records, self.fields, dataset=self.title, root=root, named=is_named)
