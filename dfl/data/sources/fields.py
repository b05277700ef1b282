"""Fields: which part of a record says an image's class, generator, group and split."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.words import capture_pattern, split_word
from dfl.errors import DataError
from dfl.types import FAKE, REAL, UNKNOWN

REST: Final = "*"


@dataclass
class Fields:
    """Where a record says what its image is.

    A field is the name of a column, ``column.part`` for a part of one, or in a WebDataset an ending
    (``cls``), ``json.key`` or ``__key__``; ``__file__`` is the container's name under the root.
    Behind a colon may stand a regular expression with one capture group, which takes its text from
    the field: ``"__key__: (.+)_fake"``.

    Args:
        label: The field of the class; none makes all images unknown, to be scored only.
        real: Values of that field which mean real, as text, number or truth value; the name where
            Hugging Face stores a class by its number. Values may be patterns with ``*``, ``?`` and
            ``[...]``; ``*`` alone takes all that nothing else does.
        fake: The values that mean fake.
        generator: The field of what made a fake; the dataset's name by default.
        group: The field whose equal values never straddle a split; each image by itself by default.
        split: The field of the split, with the values train, val (or validation) and test.
        dataset: The field of the dataset's name; all are one dataset by default.
    """

    label: str | None = "label"
    real: list[bool | int | str] = field(default_factory=lambda: [0, "real"])
    fake: list[bool | int | str] = field(default_factory=lambda: [1, "fake"])
    generator: str | None = None
    group: str | None = None
    split: str | None = None
    dataset: str | None = None

    def names(self) -> list[str]:
        """Return the fields that a container is asked for, each once."""
        every = (self.label, self.generator, self.group, self.split, self.dataset)
        names = (_parse(each)[0] for each in every if each)
        return list(dict.fromkeys(name for name in names if name != "__file__"))

    def label_of(self, text: str, path: str) -> int:
        """Return the class that a value of the field ``label`` means.

        Args:
            text: The value.
            path: The image, for the error.

        Raises:
            DataError: If it is empty, or means none or both.
        """
        if not text:
            raise DataError(f"{path}: its {self.label} is empty; give it one, or remove the row")
        values = {REAL: [*map(_text, self.real)], FAKE: [*map(_text, self.fake)]}
        for is_rest in (False, True):
            found = [
                label
                for label, known in values.items()
                if any(fnmatchcase(text, value) for value in known if (value == REST) == is_rest)
            ]
            if len(found) == 1:
                return found[0]
            if found:
                raise DataError(
                    f"{path}: its {self.label} {text!r} is both a real and a fake value; name it "
                    "once"
                )
        real, fake = (", ".join(known) or "there is none" for known in values.values())
        raise DataError(
            f"{path}: its {self.label} {text!r} is neither a real value ({real}) nor a fake one "
            f"({fake}); add it to fields.real or fields.fake"
        )


@dataclass(frozen=True)
class Records:
    """The images of one container, in its order.

    Attributes:
        file: The container as a manifest names it.
        paths: The places of the images as a manifest names them.
        values: Each field that was asked for, with a value for each image, None where there is
            none.
        split: The split that the container is for, empty if nothing says so.
    """

    file: str
    paths: Sequence[str]
    values: Mapping[str, Sequence[object]]
    split: str = ""


def records_manifest(
    records: Iterable[Records], fields: Fields, *, dataset: str, root: Path, named: bool = True
) -> Manifest:
    """Build a manifest from records.

    Args:
        records: The images of each container.
        fields: What their fields mean.
        dataset: The name of the dataset.
        root: The folder under which containers are.
        named: Whether the name is given, and not just what the root is called on this machine,
            which must not decide a split.

    Returns:
        A row for each image, in order; reals have the generator ``real``.

    Raises:
        ConfigError: If a field's regular expression has not one capture group.
        DataError: If a value means nothing that is known, is missing where one must be, or there is
            no image.
    """
    groups_of = dataset if named else ""
    frames = [_frame(part, fields, dataset, groups_of) for part in records if part.paths]
    if not frames:
        raise DataError(f"{root}: its containers hold no image; name others")
    return Manifest.from_frame(pd.concat(frames), root)


def _frame(part: Records, fields: Fields, dataset: str, groups_of: str) -> pd.DataFrame:
    paths = list(part.paths)

    def texts_of(asked: str | None) -> list[str]:
        return _texts(part, asked) if asked else [""] * len(paths)

    labels = [UNKNOWN] * len(paths)
    if fields.label:
        texts = texts_of(fields.label)
        first = dict(zip(reversed(texts), reversed(paths), strict=True))
        known = {text: fields.label_of(text, first[text]) for text in dict.fromkeys(texts)}
        labels = [known[text] for text in texts]
    splits = [part.split] * len(paths)
    if fields.split:
        splits = [_split(*each) for each in zip(texts_of(fields.split), paths, strict=True)]
    made_by = zip(labels, texts_of(fields.generator), strict=True)
    names = {REAL: "real", UNKNOWN: "unknown"}
    groups = zip(texts_of(fields.group), paths, strict=True)
    return pd.DataFrame(
        {
            "path": paths,
            "label": labels,
            "dataset": [name or dataset for name in texts_of(fields.dataset)],
            "generator": [
                (text if label == UNKNOWN and text else names.get(label, text)) or dataset
                for label, text in made_by
            ],
            "split": splits,
            "group": [f"{groups_of}:{text}" if text else path for text, path in groups],
        }
    )


def _split(text: str, path: str) -> str:
    if text and not split_word(text):
        raise DataError(f"{path}: its split {text!r} is none; it must be train, val or test")
    return split_word(text)


def _texts(part: Records, asked: str) -> list[str]:
    """Return the values of a field as text, empty where there is none."""
    name, pattern = _parse(asked)
    values = [part.file] * len(part.paths) if name == "__file__" else part.values[name]
    texts = [_text(value) for value in values]
    if pattern is None:
        return texts
    captured: list[str] = []
    for text, path in zip(texts, part.paths, strict=True):
        match = pattern.search(text)
        if match is None or not match[1]:
            raise DataError(
                f"{path}: {pattern.pattern!r} captures nothing in its {name} "
                f"({text or 'empty'}); make it match every image"
            )
        captured.append(match[1])
    return captured


def _text(value: object) -> str:
    if value is None or value != value:  # not a number: what tables have for nothing
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _parse(asked: str) -> tuple[str, re.Pattern[str] | None]:
    name, colon, expression = asked.partition(":")
    if not colon:
        return asked, None
    return name.strip(), capture_pattern(expression.strip(), "fields")
