"""The demo's images, as a config names them."""

from dataclasses import dataclass
from pathlib import Path

from dfl.data import Manifest, Source
from dfl.demo.dataset import MANIFEST_NAME, write_demo


@dataclass
class DemoImages(Source):
    """The demo's images, which are written when they are first asked for.

    Their splits are those of the photographs that they show, whatever the seed.

    Args:
        root: The folder of the images.
    """

    root: Path = Path("demo/images")

    @property
    def title(self) -> str:
        """The name of their manifest."""
        return "demo"

    def prepare(self) -> None:
        """Write the images where they are not there yet.

        Raises:
            ConfigError: If the packages of the extra ``[demo]`` are not installed.
        """
        write_demo(self.root)

    def scan(self) -> Manifest:
        """Read the manifest that was written with them."""
        return Manifest.read(Path(self.root) / MANIFEST_NAME)
