"""Fields: which part of a record says an image's class, generator, group and split."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import pandas as pd

from dfl.data.manifest.manifest import Manifest
from dfl.data.sources.words import capture_pattern, label_word, split_word
from dfl.errors import MOST_NAMED, DataError, named
from dfl.types import FAKE, REAL, UNKNOWN

REST: Final = "*"
USUAL: Final[dict[int, list[bool | int | str]]] = {REAL: [0, "real"], FAKE: [1, "fake"]}
CLASSES: Final = {REAL: "real", FAKE: "fake", UNKNOWN: "unknown"}


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
            ``[...]``; ``*`` alone takes all that nothing else does. Where neither ``real`` nor
            ``fake`` is given, other usual words count too, in any case (nature, human, ai,
            generated, ...), and a field such as ``is_fake`` or ``is_real`` says itself what 1 and
            true mean.
        fake: The values that mean fake.
        generator: The field of what made a fake; the dataset's name by default.
        group: The field whose equal values never straddle a split; each image by itself by default.
        split: The field of the split, with the values train, val (or validation) and test.
        dataset: The field of the dataset's name; all are one dataset by default.
    """

    label: str | None = "label"
    real: list[bool | int | str] = field(default_factory=lambda: [*USUAL[REAL]])
    fake: list[bool | int | str] = field(default_factory=lambda: [*USUAL[FAKE]])
    generator: str | None = None
    group: str | None = None
    split: str | None = None
    dataset: str | None = None

    def names(self) -> list[str]:
        """Return the fields that a container is asked for, each once."""
        every = (self.label, self.generator, self.group, self.split, self.dataset)
        names = (parse_field(each)[0] for each in every if each)
        return list(dict.fromkeys(name for name in names if name != "__file__"))

    def labels_of(self, text: str) -> list[int]:
        """List the classes that a value of the field ``label`` means: one, where it is sure."""
        values = {REAL: self.real, FAKE: self.fake}
        if values == USUAL and self.label:
            label = label_word(text, parse_field(self.label)[0].rpartition(".")[2])
            return [] if label is None else [label]
        for is_rest in (False, True):
            found = [
                label
                for label, known in values.items()
                if any(fnmatchcase(text, t) for t in map(text_of, known) if (t == REST) == is_rest)
            ]
            if found:
                return found
        return []


class Values:
    """What the values of a field ``label`` or ``split`` mean; those that mean nothing are gathered.

    So all of them are said at once, and what the others were taken for is said in one line.

    Args:
        fields: What fields mean.
        known: Labels that are known whatever the fields say.
    """

    def __init__(self, fields: Fields, known: Mapping[str, int] | None = None) -> None:
        self.fields = fields
        self._known = dict(known or {})
        self.taken: dict[str, int] = {}
        self._splits: dict[str, str] = {}
        self._unknown: dict[str, list[str]] = {}
        self._faults: dict[str, list[str]] = {}

    def labels(self, texts: Sequence[str], places: Sequence[str]) -> list[int]:
        """Give the class of each value of the field ``label``.

        Args:
            texts: The values.
            places: What an error calls the image of each.
        """
        several: set[str] = set()
        for text in set(texts) - self.taken.keys():
            found = self.fields.labels_of(text) if text else []
            if text in self._known:
                self.taken[text] = self._known[text]
            elif len(found) == 1:
                self.taken[text] = found[0]
            elif found:
                several.add(text)
        field = self.fields.label
        for text, place in zip(texts, places, strict=True):
            if text in self.taken:
                continue
            if text in several:
                both = f"its {field} {text!r} is both a real and a fake value; name it once"
                self._note(both, place)
            elif text:
                self._unknown.setdefault(text, []).append(place)
            else:
                self._note(f"its {field} is empty; give it one, or remove the row", place)
        return [self.taken.get(text, UNKNOWN) for text in texts]

    def splits(self, texts: Sequence[str], places: Sequence[str]) -> list[str]:
        """Give the split of each value of the field ``split``, none where it is empty.

        Args:
            texts: The values.
            places: What an error calls the image of each.
        """
        known = {text: split_word(text) for text in dict.fromkeys(texts)}
        for text, place in zip(texts, places, strict=True):
            if text and not known[text]:
                fault = f"its split {text!r} is none; it must be train, val or test"
                self._note(fault, place)
        self._splits |= known
        return [known[text] for text in texts]

    def check(self, source: str = "") -> None:
        """Refuse what was gathered.

        Args:
            source: What the error begins with.

        Raises:
            DataError: If there is anything; names the first ten places of each fault.
        """
        said = [f"{named(places)}: {what}" for what, places in self._faults.items()]
        if self._unknown:
            # of many it is the values that matter
            are_few = sum(map(len, self._unknown.values())) <= MOST_NAMED
            shown = MOST_NAMED if are_few else 1
            each = [
                f"{named(where[:shown], len(where))}: its {self.fields.label} {text!r}"
                for text, where in self._unknown.items()
            ]
            be, it = ("is", "it") if len(each) == 1 else ("are", "them")
            said.append(
                f"{named(each)} {be} neither a real value ({self._values(REAL)}) nor a fake one "
                f"({self._values(FAKE)}); add {it} to fields.real or fields.fake"
            )
        if said:
            raise DataError(source + named(said, separator="; "))

    def said_of_labels(self) -> str:
        """Say what was taken for which class: real = 'nature', fake = 'ai'."""
        by_class = {
            label: sorted(t for t, each in self.taken.items() if each == label) for label in CLASSES
        }
        return ", ".join(
            f"{CLASSES[label]} = {named([*map(repr, texts)])}"
            for label, texts in by_class.items()
            if texts
        )

    def said_of_splits(self) -> str:
        """Say which splits were called otherwise: val = 'valid'."""
        words = {text: split for text, split in self._splits.items() if text != split}
        return ", ".join(f"{split} = {text!r}" for text, split in words.items())

    def _note(self, fault: str, place: str) -> None:
        self._faults.setdefault(fault, []).append(place)

    def _values(self, label: int) -> str:
        fields = self.fields
        known = [text_of(value) for value in (fields.fake if label == FAKE else fields.real)]
        is_usual = (fields.real, fields.fake) == (USUAL[REAL], USUAL[FAKE])
        return ", ".join([*known, *["..."] * is_usual]) or "there is none"


@dataclass(frozen=True)
class Records:
    """The images of one container, in its order.

    Attributes:
        file: The container as a manifest names it.
        paths: The places of the images as a manifest names them.
        values: Each field that was asked for, with a value for each image, None where there is
            none.
        split: The split that the container is for, empty if nothing says so.
        places: What an error calls the images; their paths by default.
    """

    file: str
    paths: Sequence[str]
    values: Mapping[str, Sequence[object]]
    split: str = ""
    places: Sequence[str] = ()


def records_manifest(
    records: Iterable[Records], fields: Fields, *, dataset: str, root: Path, is_named: bool = True
) -> Manifest:
    """Build a manifest from records.

    Args:
        records: The images of each container.
        fields: What their fields mean.
        dataset: The name of the dataset.
        root: The folder under which containers are.
        is_named: Whether the name is given, and not just what the root is called on this machine,
            which must not decide a split.

    Returns:
        A row for each image, in order; reals have the generator ``real``.

    Raises:
        ConfigError: If a field's regular expression has not one capture group.
        DataError: If a value means nothing that is known, is missing where one must be, or there is
            no image.
    """
    values = Values(fields)
    prefix = f"{dataset if is_named else ''}:"
    frames = [records_frame(part, values, dataset, prefix) for part in records if part.paths]
    if not frames:
        raise DataError(f"{root}: its containers hold no image; name others")
    values.check()
    words = {"label": values.said_of_labels(), "split": values.said_of_splits()}
    said = [
        f"{part} from {name!r}" + (f" ({words[part]})" if words.get(part) else "")
        for part in ("label", "dataset", "generator", "split", "group")
        if (name := getattr(fields, part))
    ]
    notes = (f"{dataset}: {', '.join(said)}",) if said else ()
    return Manifest.from_frame(pd.concat(frames), root, notes=notes)


def records_frame(part: Records, values: Values, dataset: str, prefix: str = "") -> pd.DataFrame:
    """Describe the images of a container by the columns of a manifest.

    Args:
        part: The images.
        values: What their fields mean; gathers what means nothing.
        dataset: The name of the dataset, and of what made a fake, where nothing else says so.
        prefix: What the name of a group begins with.

    Raises:
        ConfigError: If a field's regular expression has not one capture group.
    """
    fields, paths = values.fields, list(part.paths)
    places = part.places or paths

    def texts_of(asked: str | None) -> list[str]:
        return _texts(part, asked) if asked else [""] * len(paths)

    labels = [UNKNOWN] * len(paths)
    if fields.label:
        labels = values.labels(texts_of(fields.label), places)
    splits = [part.split] * len(paths)
    if fields.split:
        splits = values.splits(texts_of(fields.split), places)
    datasets = [name or dataset for name in texts_of(fields.dataset)]
    generators = zip(labels, texts_of(fields.generator), datasets, strict=True)
    groups = zip(texts_of(fields.group), paths, strict=True)
    return pd.DataFrame(
        {
            "path": paths,
            "label": labels,
            "dataset": datasets,
            "generator": [_generator(*each) for each in generators],
            "split": splits,
            "group": [f"{prefix}{text}" if text else path for text, path in groups],
        }
    )


def _generator(label: int, text: str, dataset: str) -> str:
    if label == FAKE or (label == UNKNOWN and text):
        return text or dataset
    return CLASSES[label]


def _texts(part: Records, asked: str) -> list[str]:
    """Return the values of a field as text, empty where there is none."""
    name, pattern = parse_field(asked)
    values = [part.file] * len(part.paths) if name == "__file__" else part.values[name]
    texts = [text_of(value) for value in values]
    if pattern is None:
        return texts
    matches = [pattern.search(text) for text in texts]
    found = [match[1] or "" if match else "" for match in matches]
    if missed := [i for i, text in enumerate(found) if not text]:
        places, first = part.places or part.paths, texts[missed[0]] or "empty"
        raise DataError(
            f"{named([places[i] for i in missed])}: {pattern.pattern!r} captures nothing in its "
            f"{name} ({first}); make it match every image"
        )
    return found


def text_of(value: object) -> str:
    """Write a value as the text that it is compared by: empty for none, 1 for 1.0."""
    if value is None or value != value:  # not a number: what tables have for nothing
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def parse_field(asked: str) -> tuple[str, re.Pattern[str] | None]:
    """Take a field apart: its name, and the regular expression behind a colon, if there is one.

    Raises:
        ConfigError: If the expression is none, or has not one capture group.
    """
    name, colon, expression = asked.partition(":")
    if not colon:
        return asked, None
    return name.strip(), capture_pattern(expression.strip(), "fields")
