from pathlib import Path

import pytest

from dfl.data.sources.fields import Fields, Records, records_manifest
from dfl.errors import ConfigError, DataError

ROOT = Path("root")


def build(fields: Fields, split: str = "", **values: list[object]):
    count = len(next(iter(values.values())))
    paths = [f"a-real.tar::{i}.png" for i in range(count)]
    records = [Records("a-real.tar", paths, values, split)]
    return records_manifest(records, fields, dataset="set", root=ROOT).frame


@pytest.mark.parametrize(
    "values",
    [
        [0, 1],
        ["0", "1"],
        ["real", "fake"],
        [0.0, 1.0],
    ],
)
def test_label__default_values(values: list[object]) -> None:
    frame = build(Fields(), label=values)
    assert frame["label"].tolist() == [0, 1]
    assert frame["generator"].tolist() == ["real", "set"]
    assert frame["group"].tolist() == frame["path"].tolist()
    assert set(frame["dataset"]) == {"set"}
    assert set(frame["split"]) == {""}


def test_label__patterns_and_the_rest() -> None:
    fields = Fields("model", real=["photo*", True], fake=["*"], generator="model")
    frame = build(fields, model=["photo-1", True, "sdxl", False, 3])
    assert frame["label"].tolist() == [0, 0, 1, 1, 1]
    assert frame["generator"].tolist() == ["real", "real", "sdxl", "false", "3"]


def test_label__of_the_file() -> None:
    frame = build(Fields("__file__: -(real|fake)"), label=[0, 0])
    assert frame["label"].tolist() == [0, 0]
    assert build(Fields("__file__", real=["*-real.tar"]), x=[0])["label"].tolist() == [0]


def test_label__none_is_unknown() -> None:
    frame = build(Fields(None, generator="model"), model=["sdxl", None])
    assert frame["label"].tolist() == [-1, -1]
    assert frame["generator"].tolist() == ["sdxl", "unknown"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "maybe",
            r"its label 'maybe' is neither a real value \(0, real, .* nor a fake one \(1, fake, ",
        ),
        (None, "a-real.tar::1.png: its label is empty; give it one, or remove the row"),
        (float("nan"), "its label is empty"),
    ],
)
def test_label__unmapped(value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(Fields(), label=[0, value])


def test_label__both() -> None:
    with pytest.raises(DataError, match="its label 'ab' is both a real and a fake value"):
        build(Fields(real=["a*"], fake=["*b"]), label=["ab"])


def test_group_split_dataset__of_fields() -> None:
    fields = Fields(group="scene", split="part", dataset="source")
    frame = build(
        fields,
        label=[0, 1, 1],
        scene=["s", "s", None],
        part=["train", "Validation", None],
        source=["x", None, "y"],
    )
    assert frame["group"].tolist() == ["set:s", "set:s", frame["path"][2]]
    assert frame["split"].tolist() == ["train", "val", ""]
    assert frame["dataset"].tolist() == ["x", "set", "y"]


def test_split__of_the_container() -> None:
    assert build(Fields(), "test", label=[0])["split"].tolist() == ["test"]


def test_split__unknown() -> None:
    with pytest.raises(DataError, match="its split 'extra' is none; it must be train, val or test"):
        build(Fields(split="part"), label=[0], part=["extra"])


def test_pattern__captures_nothing() -> None:
    with pytest.raises(DataError, match=r"a-real.tar::1.png: '\^\(s\\\\d\+\)' captures nothing"):
        build(Fields(group=r"scene: ^(s\d+)"), label=[0, 0], scene=["s1", "t"])


@pytest.mark.parametrize("pattern", ["a", "(a)(b)", "("])
def test_pattern__not_one_group(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"fields: .* (capture groups|no regular expression)"):
        build(Fields(group=f"label: {pattern}"), label=[0])


def test_records__no_image() -> None:
    with pytest.raises(DataError, match="root: its containers hold no image"):
        build(Fields(), label=[])
