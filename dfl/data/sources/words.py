"""The words by which folders, columns and splits of other libraries say what an image is."""

import re
from typing import Final

from dfl.errors import ConfigError
from dfl.types import FAKE, REAL

GENIMAGE: Final = ("nature", "ai")
LAYOUTS: Final = (
    ("0_real", "1_fake"),  # ForenSynths, UniversalFakeDetect
    GENIMAGE,
    ("REAL", "FAKE"),  # CIFAKE
    ("real", "fake"),
)
"""The folder names of both classes, real first, in each layout of the field."""

KNOWN_LAYOUTS: Final = ", ".join("/".join(names) for names in LAYOUTS)
LAYOUT_OF: Final = {name: names for names in LAYOUTS for name in names}
SIDE_LABELS: Final = {
    name: label for names in LAYOUTS for name, label in zip(names, (REAL, FAKE), strict=True)
}
"""The class of the images in a folder of this name."""

SIDE_NAMES: Final = {REAL: "real", FAKE: "fake"}

SPLIT_WORDS: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""What a column, or the name of a split of a dataset, calls the three splits; in any case."""

SPLIT_FOLDERS: Final = frozenset(SPLIT_WORDS.values())
"""What folders of a layout are called for them."""


def split_role(split: str, *, has_test: bool) -> str:
    """Say what a part of a published set is for: one that has no test reports its results on val.

    Args:
        split: ``train``, ``val`` or ``test``.
        has_test: Whether the set has a part for tests.
    """
    return "test" if split == "val" and not has_test else split


def capture_pattern(expression: str, option: str) -> re.Pattern[str]:
    """Compile a regular expression that takes its one capture group from a text.

    Args:
        expression: The regular expression.
        option: What the error names.

    Raises:
        ConfigError: If it is none, or has not one capture group.
    """
    try:
        pattern = re.compile(expression)
    except re.error as err:
        raise ConfigError(f"{option}: {expression!r} is no regular expression ({err})") from err
    if pattern.groups != 1:
        raise ConfigError(
            f"{option}: {expression!r} has {pattern.groups} capture groups; it must have one, as "
            "in '(.+)_real'; write (?:...) for the others"
        )
    return pattern
