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

FLAGS: Final = {
    **dict.fromkeys(("real", "isreal", "ishuman", "isauthentic", "isnatural", "isphoto"), REAL),
    **dict.fromkeys(
        ("fake", "isfake", "isai", "isaigenerated", "isgenerated", "issynthetic"), FAKE
    ),
    **dict.fromkeys(("aigenerated", "generated", "synthetic", "isdeepfake"), FAKE),
}
"""Columns in which 1 and true mean real, or fake; without what stands between their words."""

COLUMN_WORDS: Final = {
    "path": (
        *("path", "paths", "file", "files", "filepath", "filepaths", "filename", "filenames"),
        *("image", "images", "imagepath", "imagepaths", "imagefile", "imagename", "imagefilename"),
        *("img", "imgpath", "imgfile", "imgname", "imgfilename", "fname", "relpath"),
        *("relativepath", "fullpath"),
    ),
    "label": (
        *("label", "labels", "labelname", "labelstr", "class", "classname", "classlabel"),
        *("target", "targets", "y", "gt", "groundtruth", "truth", "category", "type", "kind"),
        *FLAGS,
    ),
    "dataset": ("dataset", "datasetname"),
    "generator": ("generator", "generatorname", "generativemodel", "model", "modelname"),
    "split": ("split", "subset", "partition", "set"),
    "group": ("group", "groupid"),
}
"""What tables of other tools call the columns of a manifest, written as in `FLAGS`."""

_ANSWERS: Final = {"true": 1, "yes": 1, "false": 0, "no": 0}
_NUMBER: Final = re.compile(r"([01])(\.0*)?")
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


def label_word(text: str, column: str = "") -> int | None:
    """Say which class a text means, where it says nothing else.

    Args:
        text: A value of a column: ``Fake``, ``AI-generated``, ``RealArt``, ``1.0``. The number 1
            is fake and 0 is real, unless the column says otherwise.
        column: Its name: in ``is_real``, 1 is real, and true and false have a meaning too.

    Returns:
        REAL or FAKE; None where it says none or both, or has other words.
    """
    asked = FLAGS.get(column_word(column))
    number = _NUMBER.fullmatch(text.strip())
    answer = int(number[1]) if number else None if asked is None else _ANSWERS.get(text.lower())
    if answer is not None:
        return REAL if answer == (asked == REAL) else FAKE
    words = [word for word in words_of(text) if word not in FILLERS and not word.isdecimal()]
    found = {CLASS_WORDS.get(word) for word in words}
    return found.pop() if len(found) == 1 else None


def column_word(name: str) -> str:
    """Give the name of a column without case and what stands between its words."""
    return "".join(words_of(name))


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
