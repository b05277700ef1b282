"""The words by which folders, files and columns of published sets say what an image is."""

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
    "trainset": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "valset": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
    "testset": "test",
}
"""What folders, files, columns and the splits of other libraries call the three splits."""

FILLERS: Final = frozenset(
    [
        *("data", "dataset", "datasets", "set", "sets", "split", "splits", "part", "parts"),
        *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo"),
        *("photos", "face", "faces", "art", "sample", "samples", "folder", "files", "shard"),
        "shards",
    ]
)
"""Words that change nothing: ``test_images`` is ``test``."""

CLASS_WORDS: Final = {
    "real": REAL,
    "reals": REAL,
    "nature": REAL,
    "natural": REAL,
    "human": REAL,
    "humans": REAL,
    "original": REAL,
    "originals": REAL,
    "authentic": REAL,
    "genuine": REAL,
    "fake": FAKE,
    "fakes": FAKE,
    "ai": FAKE,
    "aigc": FAKE,
    "generated": FAKE,
    "synthetic": FAKE,
    "synthesis": FAKE,
    "synthesized": FAKE,
    "artificial": FAKE,
    "deepfake": FAKE,
    "deepfakes": FAKE,
    "manipulated": FAKE,
}
"""What folders call the classes."""

SPLIT_FOLDERS: Final = frozenset(SPLIT_WORDS.values())
"""What folders of a layout are called for them."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


def words_of(name: str) -> list[str]:
    """Take a name apart: ``AiArtData`` and ``ai_art-data`` are ``ai``, ``art`` and ``data``."""
    return [word.lower() for word in _WORD.findall(name)]


def split_word(text: str) -> str:
    """Say which split a text names, where it says nothing else of an image but its class.

    Args:
        text: A value of a column, or a name: ``Validation``, ``train2017``, ``test set``,
            ``training_real``.

    Returns:
        ``train``, ``val`` or ``test``; empty where it names none or several, or has other words.
    """
    return split_in(text) if says_no_more(text) else ""


def split_in(name: str) -> str:
    """Say which split has its word in the name of a folder or file, whatever else it says.

    Args:
        name: A name such as ``progan_val`` or ``train-00000-of-00004``, without its ending.

    Returns:
        ``train``, ``val`` or ``test``; empty where it has the words of none or of several.
    """
    found = splits_in(name)
    return found.pop() if len(found) == 1 else ""


def splits_in(name: str) -> set[str]:
    """Return all splits whose words are in a name."""
    return {SPLIT_WORDS[word] for word in words_of(name) if word in SPLIT_WORDS}


def says_no_more(name: str) -> bool:
    """Whether a name has only words of splits and classes, fillers and numbers."""
    known = (SPLIT_WORDS, CLASS_WORDS, FILLERS)
    return all(word.isdecimal() or any(word in each for each in known) for word in words_of(name))


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
