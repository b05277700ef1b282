"""Images in the rows of Parquet files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dfl.data.sources.fields import Fields, Records
from dfl.data.sources.packed import PackedFiles
from dfl.data.sources.table_records import table_records, told_fields


@dataclass
class Parquet(PackedFiles):
    """Images in the rows of Parquet files, as bytes or as Hugging Face writes them.

    They are read fast from front to back. In random order each image costs its whole row group,
    unless the groups of all files fit in what is held (four files, two groups of up to 64 MiB
    each): of larger sets ``extract`` the features, and train on those.

    Names of files and folders that have a word of a split say the split where ``fields`` says none.

    Args:
        root: The folder under which the files are; relative to the working directory.
        files: The files, or patterns of them (``train-*.parquet``); all below the root by default.
        image: The column of images; the only one that can hold any by default.
        fields: Which columns say what an image is; ``label`` with 0 or real, 1 or fake by default,
            and columns that are called ``generator``, ``group`` or ``split``.
        name: The dataset's name, which is also the generator of fakes where none is given; the
            root's by default.
    """

    root: Path
    files: list[str] = field(default_factory=lambda: ["**/*.parquet"])
    image: str | None = None
    fields: Fields = field(default_factory=Fields)
    name: str | None = None

    def records(self, file: Path, name: str, fields: Fields) -> Records:
        """List the images of a table, in the order of its rows."""
        return table_records(file, name, image=self.image, fields=fields.names())

    def told(self, files: Sequence[Path]) -> Fields:
        """Give the fields, with those that the names of columns tell."""
        return told_fields(files, self.fields)
