"""The demo's real photographs: where they lie in installed wheels, and on which side of the split.

No file is downloaded: each is part of a wheel, and is read from where that wheel was installed.

| photograph   | wheel        | author and licence                                |
| ------------ | ------------ | ------------------------------------------------- |
| astronaut    | scikit-image | NASA, public domain                               |
| brick        | scikit-image | CC0Textures, CC0                                  |
| camera       | scikit-image | Lav Varshney, CC0                                 |
| chelsea      | scikit-image | Stefan van der Walt, CC0                          |
| china        | scikit-learn | danielbuechele (Flickr), CC BY 2.0                |
| coffee       | scikit-image | Rachel Michetti, CC0                              |
| coins        | scikit-image | Brooklyn Museum, no known copyright restrictions  |
| flower       | scikit-learn | vultilion (Flickr), CC BY 2.0                     |
| grace_hopper | matplotlib   | James S. Davis, United States Navy, public domain |
| grass        | scikit-image | Linolafett (DeviantArt), CC0                      |
| gravel       | scikit-image | CC0Textures, CC0                                  |
| ihc          | scikit-image | CMMI (tissue, stained), no known restrictions     |
| rocket       | scikit-image | SpaceX, public domain                             |

The generated images of ``dfl/demo/images`` imitate crops of these photographs. They were made by
the models of ``dfl/demo/generators``, and are under the licence of what they imitate: those of
``china`` and ``flower`` are adaptations under CC BY 2.0
(https://creativecommons.org/licenses/by/2.0/).
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from PIL import Image

from dfl.errors import ConfigError

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")

INSTALL: Final = 'pip install "dfl[demo]"'


@dataclass(frozen=True)
class Photograph:
    """One photograph of the demo; with all its crops and their imitations it is one group.

    Attributes:
        name: The group's name in the manifest.
        package: The import name of the package whose wheel carries it.
        file: Its path inside that package, POSIX.
        split: The one side on which it is used. Heads and generators learn from ``train`` alone.
        is_grey: Whether it has no colour; its imitations have none either.
    """

    name: str
    package: str
    file: str
    split: Split
    is_grey: bool = False


PHOTOGRAPHS: Final[tuple[Photograph, ...]] = (
    Photograph("astronaut", "skimage", "data/astronaut.png", "train"),
    Photograph("camera", "skimage", "data/camera.png", "train", is_grey=True),
    Photograph("china", "sklearn", "datasets/images/china.jpg", "train"),
    Photograph("coffee", "skimage", "data/coffee.png", "train"),
    Photograph("coins", "skimage", "data/coins.png", "train", is_grey=True),
    Photograph("grass", "skimage", "data/grass.png", "train", is_grey=True),
    Photograph("ihc", "skimage", "data/ihc.png", "train"),
    Photograph("grace_hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "val"),
    Photograph("gravel", "skimage", "data/gravel.png", "val", is_grey=True),
    Photograph("brick", "skimage", "data/brick.png", "test", is_grey=True),
    Photograph("chelsea", "skimage", "data/chelsea.png", "test"),
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "test"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "test"),
)
"""What the wheels hold under a stated licence, without those that show mostly one plain surface."""


def photograph_path(photograph: Photograph) -> Path:
    """Find a photograph in the installed wheel, without importing the package.

    Args:
        photograph: Which one.

    Returns:
        The path of an existing file.

    Raises:
        ConfigError: If the package is not installed, or its wheel has no such file.
    """
    spec = find_spec(photograph.package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"The demo needs the photograph {photograph.name!r} of the package "
            f"{photograph.package!r}, which is not installed: {INSTALL}"
        )
    path = Path(spec.submodule_search_locations[0], photograph.file)
    if not path.is_file():
        raise ConfigError(
            f"{path}: the demo's photograph {photograph.name!r} is missing from the installed "
            f"{photograph.package!r}: install the release the demo was made for with {INSTALL}"
        )
    return path


def load_photograph(photograph: Photograph) -> Image.Image:
    """Decode a photograph.

    Args:
        photograph: Which one.

    Returns:
        The image, mode ``RGB``; the three channels of a grey photograph are equal.

    Raises:
        ConfigError: If it is not installed.
    """
    with Image.open(photograph_path(photograph)) as image:
        pixels = image.convert("RGB")
    pixels.info.clear()  # a colour profile would be written into each crop, and give it away
    return pixels
