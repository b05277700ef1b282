"""The words by which folders, files and columns of published sets say what an image is.

All are read in any case and whatever stands between them: ``Test_Set``, ``val2017``, ``RealArt``.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from dfl.errors import ConfigError
from dfl.types import FAKE, REAL

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

LONE_WORDS: Final = frozenset({"dev", "eval", "evaluation"})
"""Words that mean something else in other names, such as FLUX.1-dev and GenEval."""

FILLERS: Final = frozenset(
    [
        *("data", "dataset", "datasets", "set", "sets", "split", "splits", "part", "parts"),
        *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo"),
        *("photos", "face", "faces", "art", "sample", "samples", "folder", "files", "shard"),
        *("shards", "dir"),
    ]
)
"""Words that change nothing: ``test_images`` is ``test``."""

WRAPPERS: Final = frozenset(["image", "images", "img", "imgs", "data", "dataset", "datasets"])
"""Folders around sets, which are not what a set is called."""

SIDES: Final = {
    "0_real": REAL,
    "1_fake": FAKE,
    "nature": REAL,
    "ai": FAKE,
    "real": REAL,
    "fake": FAKE,
}
"""Folder names that say a class wherever they stand: ForenSynths, GenImage, CIFAKE and many."""

KNOWN_LAYOUTS: Final = "0_real/1_fake, nature/ai, real/fake, human/ai and the like, in any case"

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
"""What folders call the classes; all but `SIDES` count only where both stand side by side."""

OBJECTS: Final = frozenset(
    [
        *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
        "tvmonitor",
    ]
)
"""Classes of objects beside which ``train`` is one more: those of LSUN, which ForenSynths has."""

FLAGS: Final = {
    **dict.fromkeys(("real", "isreal", "ishuman", "isauthentic", "isnatural", "isphoto"), REAL),
    **dict.fromkeys(
        ("fake", "ai", "isfake", "isai", "isaigenerated", "isgenerated", "issynthetic"), FAKE
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
        *("label", "labels", "labelname", "labelstr", "labelid", "binarylabel", "class"),
        *("classname", "classlabel", "classid"),
        *("target", "targets", "y", "gt", "groundtruth", "truth", "category", "type", "kind"),
        *FLAGS,
    ),
    "dataset": ("dataset", "datasetname"),
    "generator": ("generator", "generatorname", "generativemodel", "model", "modelname"),
    "split": ("split", "subset", "partition", "set"),
    "group": ("group", "groupid"),
}
"""What tables of other tools call the columns of a manifest, written as in `FLAGS`."""

FAMILIES: Final = frozenset(
    [
        *("gan", "gans", "dm", "dms", "diffusion", "diffusions", "autoregressive", "vae", "vaes"),
        *("model", "models", "generator", "generators", "other", "others"),
    ]
)
"""Folders around those of generators, in sets with many of them (WildFake)."""

_ANSWERS: Final = {
    **dict.fromkeys(("true", "yes", "t", "y"), 1),
    **dict.fromkeys(("false", "no", "f", "n"), 0),
}
_NUMBER: Final = re.compile(r"([01])(\.0*)?")
_WORD: Final = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


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
    """Return all splits whose words are in a name; some count only where it says nothing else."""
    words = [word for word in words_of(name) if word in SPLIT_WORDS]
    if not says_no_more(name):
        words = [word for word in words if word not in LONE_WORDS]
    return {SPLIT_WORDS[word] for word in words}


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


def may_be_split(text: str) -> bool:
    """Whether a value of a column of splits is one, or leaves it open."""
    return not text or bool(split_word(text))


def called(names: Iterable[str], part: str) -> list[str]:
    """List the columns that may be a part of a manifest by their names: its own, or the usual ones.

    Args:
        names: The columns of a table.
        part: A column of a manifest.
    """
    found = [str(name) for name in names if column_word(str(name)) in COLUMN_WORDS[part]]
    return [part] if part in found and part != "label" else found


def split_role(split: str, *, has_test: bool) -> str:
    """Say what a part of a published set is for: one that has no test reports its results on val.

    Args:
        split: ``train``, ``val`` or ``test``.
        has_test: Whether the set has a part for tests.
    """
    return "test" if split == "val" and not has_test else split


def says_class(name: str) -> bool:
    """Whether a name says a class and nothing else but a split: ``fake``, ``training_fake``."""
    return says_no_more(name) and any(word in CLASS_WORDS for word in words_of(name))


def is_content(name: str) -> bool:
    """Whether a folder is named for what its images show: a class of LSUN, or one of WordNet."""
    return name.lower() in OBJECTS or re.fullmatch(r"n\d{8}", name) is not None


def is_family(name: str) -> bool:
    """Whether a folder is named for a kind of generators: ``GANs``, ``diffusion_models``."""
    return all(word in FAMILIES for word in words_of(name))


def is_set(name: str) -> bool:
    """Whether a folder may be called as a set is, which ``test`` and ``images`` are not."""
    is_wrapper = all(word in WRAPPERS for word in words_of(name))
    return not (split_word(name) or is_wrapper or is_content(name))


@dataclass(frozen=True)
class Sides:
    """Which of the folders that stand side by side hold one class.

    Attributes:
        labels: REAL or FAKE by the folder's name.
        generators: What made a folder's images, where its name says so.
        reason: Why, where it is not by their words alone; a line for the user.
    """

    labels: dict[str, int] = field(default_factory=dict)
    generators: dict[str, str] = field(default_factory=dict)
    reason: str = ""


def sides_of(names: Collection[str], *, leaves: Collection[str], is_all: bool) -> Sides:
    """Say which of some folders hold one class, by their names.

    The words of `SIDES` count by themselves, all others where they stand for the class that is
    missing beside them. So do 0 and 1 where there is nothing else, what stands beside ``real`` and
    has no word (DiffusionForensics), and what stands beside an ``AI_SD_baroque`` as ``baroque``
    (AI-ArtBench).

    Args:
        names: The folders that stand side by side.
        leaves: Those of them that have no side of a layout in them.
        is_all: Whether no image stands beside them.
    """
    labels = {name: SIDES[name.lower()] for name in names if name.lower() in SIDES}
    missing = {REAL, FAKE} - set(labels.values())
    others = sorted(name for name in leaves if name not in labels)
    if not missing or not others:
        return Sides(labels)
    said = {name: _label_of(name) for name in others}
    chosen = {name: label for name, label in said.items() if label in missing}
    is_sure = len(missing) == 2 or len(chosen) == len(others) or any(map(says_no_more, chosen))
    if missing <= set(chosen.values()) and is_sure:
        labels |= chosen
        fakes = [name for name, label in labels.items() if label == FAKE]
        is_one = len({tuple(_core_of(name)) for name in fakes}) == 1
        named = [name for name in fakes if not (is_one and says_no_more(name))]
        return Sides(labels, {name: name for name in named})
    if is_all and set(names) == {"0", "1"}:
        return Sides({"0": REAL, "1": FAKE}, reason="0 is taken for real and 1 for fake")
    if [name.lower() for name in labels] == ["real"]:
        made = [name for name in others if not (says_no_more(name) or is_content(name))]
        if made == others:
            reason = f"what stands beside {next(iter(labels))}/ is taken for generators"
            return Sides(
                labels | dict.fromkeys(made, FAKE), dict(zip(made, made, strict=True)), reason
            )
    if not labels and FAKE in said.values():
        made = [name for name in others if said[name] == FAKE]
        plain = [name for name in others if name not in made]
        of = {name: [each for each in plain if name.endswith(each)] for name in made}
        if (
            plain
            and all(of.values())
            and {each for found in of.values() for each in found} == set(plain)
        ):
            labels = dict.fromkeys(plain, REAL) | dict.fromkeys(made, FAKE)
            generators = {
                name: name.removesuffix(max(found, key=len)).rstrip("_- ")
                for name, found in of.items()
            }
            reason = (
                "what has the name of a generated set without its first words is taken for real"
            )
            return Sides(labels, generators, reason)
    return Sides(labels)


def _core_of(name: str) -> list[str]:
    """Return the words of a name but numbers, fillers and splits."""
    others = (FILLERS, SPLIT_WORDS)
    return [
        word
        for word in words_of(name)
        if not (word.isdecimal() or any(word in each for each in others))
    ]


def _label_of(name: str) -> int | None:
    """Say which class the first or last word of a name says, digits and fillers aside."""
    words = _core_of(name)
    found = {CLASS_WORDS[word] for word in words if word in CLASS_WORDS}
    is_end = any(word in CLASS_WORDS for word in words[:1] + words[-1:])
    is_denied = not {"no", "non", "not"}.isdisjoint(words)
    return found.pop() if is_end and len(found) == 1 and not is_denied else None


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
