"""What all sources of images have in common."""

from abc import ABC, abstractmethod
from typing import ClassVar

from dfl.data.manifest.manifest import Manifest
from dfl.recipe import Plain, describe


class Source(ABC):
    """Where images come from, and how it is told what they are.

    A kind of source is a dataclass in a file of its own, which ``dfl.data`` exports; its fields are
    what a config says.
    """

    is_split: ClassVar[bool] = True
    """Whether its images are divided into train, val and test, which a file then keeps."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What a person would call the images; the names of their files begin with it."""

    @abstractmethod
    def scan(self) -> Manifest:
        """List the images that are there now, without reading them.

        Raises:
            ConfigError: If a setting means nothing.
            DataError: If the images cannot be used.
        """

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Make the images be there, where they are not yet; one process does."""

    def recipe(self) -> Plain:
        """Describe what the images follow from; with other images the description is another."""
        return describe(self)

    def advice(self, split: str) -> str:
        """Say what to do where no image is in a split."""
        return {
            "train": "lower test_fraction, give images that are not all marked as test or val, or "
            "set splits.published to false",
            "val": "raise val_fraction, add images, or set trainer.limit_val_batches to 0 "
            "and take out the callbacks that monitor val/",
            "test": "raise test_fraction, add images, or set splits.published to false where all "
            "are marked as train or val",
        }[split]
