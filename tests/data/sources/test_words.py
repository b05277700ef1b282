import re

import pytest

from dfl.data.sources.words import (
    CLASS_WORDS,
    SIDE_NAMES,
    SPLIT_WORDS,
    Sides,
    is_set,
    label_word,
    sides_of,
    split_in,
    split_word,
)
from dfl.types import FAKE, REAL
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("text", "split"),
    [
        *((word, "train") for word in ("train", "TRAIN", "Training", "train2017", "train_set")),
        *((word, "val") for word in ("val", "Valid", "validation", "dev", "val2017", "eval")),
        *((word, "test") for word in ("test", "Testing", "test2", "test images", "testset")),
        *((word, "train") for word in ("training_real", "TrainData", "train-1")),
        *((word, "") for word in ("", "0", "real", "trained", "latest", "biggan_test", "trains")),
        *((word, "") for word in ("train_test", "train/val", "contest", "validity", "日本")),
    ],
)
def test_split_word__of_a_whole_text(text: str, split: str) -> None:
    assert split_word(text) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00004", "train"),
        ("data_test_3", "test"),
        ("progan_val", "val"),
        ("CNN_synth_testset", "test"),
        ("ILSVRC2012_img_val", "val"),
        ("trainA", "train"),
        ("train_val_test", ""),
        ("latest-0001", ""),
        ("flux1dev", ""),
        ("FLUX.1-dev", ""),
        ("GenEval", ""),
        ("Dev", "val"),
        ("dev_images", "val"),
        ("sdxl", ""),
    ],
)
def test_split_in__a_name_that_says_more(name: str, split: str) -> None:
    assert split_in(name) == split


@pytest.mark.parametrize(
    ("text", "label"),
    [
        *(
            (word, 0)
            for word in ("real", "REAL", "0_real", "Nature", "human", "Original", "0", "0.")
        ),
        *(
            (word, 1)
            for word in ("Fake", "1_fake", "AI", "AI-generated", "ai_generated", "1", "1.0")
        ),
        *((word, 0) for word in ("RealArt", "real images", "authentic photo")),
        *((word, 1) for word in ("AiArtData", "synthetic", "Deepfakes", "AIGC")),
        *((word, None) for word in ("", "true", "no", "2", "-1", "10", "photo", "sdxl", "日本")),
        *((word, None) for word in ("not real", "real fake", "RealESRGAN", "RealVisXL", "non-ai")),
    ],
)
def test_label_word__in_any_column(text: str, label: int | None) -> None:
    assert label_word(text) == label
    assert label_word(text, "label") == label


@pytest.mark.parametrize("column", ["is_fake", "IsAI", "Fake", "ai-generated", "is real", "Real"])
def test_label_word__in_a_column_that_asks(column: str) -> None:
    yes = 0 if "real" in column.lower() else 1
    for text in ("1", "1.0", "True", "yes", "t"):
        assert label_word(text, column) == yes
    for text in ("0", "FALSE", "no", "F"):
        assert label_word(text, column) == 1 - yes
    assert label_word("real", column) == 0
    assert label_word("fake", column) == 1


def test_readme__lists_the_words() -> None:
    text = (REPOSITORY / "configs/README.md").read_text("utf-8")
    table = text.partition("## Published sets")[2].partition("\n- ")[0]
    rows = dict(re.findall(r"^\| (\w+) \| (`.+`) \|$", table, re.M))
    listed = {word: says for says, words in rows.items() for word in re.findall(r"`(\w+)`", words)}
    named = {word: SIDE_NAMES[label] for word, label in CLASS_WORDS.items()}
    assert listed == SPLIT_WORDS | named


def sides(*names: str, inner: tuple[str, ...] = (), is_all: bool = True) -> dict[str, int]:
    leaves = [name for name in names if name not in inner]
    return sides_of(names, leaves=leaves, is_all=is_all).labels


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("0_real", "1_fake"),
        ("NATURE", "Ai"),
        ("Real", "FAKE"),
        ("real", "ai"),
        ("Real", "generated"),
        ("human", "AI-Generated Images"),
        ("Original", "synthetic"),
        ("RealArt", "AiArtData"),
        ("training_real", "training_fake"),
        ("coco_real", "sdxl_fake"),
        ("real", "fakeV2"),
        ("0", "1"),
        ("real", "adm"),
    ],
)
def test_sides__pairs_of_published_sets(real: str, fake: str) -> None:
    assert sides(real, fake) == {real: REAL, fake: FAKE}


@pytest.mark.parametrize(
    "names",
    [
        ("human", "cat"),  # words that mean a class only beside the other one
        ("synthetic", "sdxl"),
        ("0", "1", "2"),
        ("0",),
        ("real_vs_fake", "fake_vs_real"),
        ("original", "resized"),
        ("human", "non_ai"),
    ],
)
def test_sides__ambiguous_names_are_none(names: tuple[str, ...]) -> None:
    assert sides(*names) == {}


def test_sides__numbers_are_none_beside_images() -> None:
    assert sides("0", "1", is_all=False) == {}


def test_sides__what_stands_beside_real_is_no_generator_where_it_may_be_a_part() -> None:
    assert sides("real", "train") == {"real": REAL}
    assert sides("real", "adm", "images") == {"real": REAL}
    assert sides("real", "cat") == {"real": REAL}
    assert sides("0_real", "adm") == {"0_real": REAL}
    assert sides("real", "progan", inner=("progan",)) == {"real": REAL}


def test_sides__generators_beside_real_are_all_of_them() -> None:
    names = ["real", "StabilityAI", "sdxl", "RealVisXL"]
    assert sides(*names) == dict(zip(names, (REAL, FAKE, FAKE, FAKE), strict=True))


def test_sides__several_generators_keep_their_names() -> None:
    names = ["Human", "AI_SD", "AI_LD", "other"]
    found = sides_of(names, leaves=names, is_all=True)
    assert found == Sides(
        {"Human": REAL, "AI_SD": FAKE, "AI_LD": FAKE}, {"AI_SD": "AI_SD", "AI_LD": "AI_LD"}
    )


def test_is_set__wrappers_parts_and_objects_are_none() -> None:
    names = ["images", "Dataset", "train", "val2017", "airplane", "n01440764"]
    assert [name for name in names if is_set(name)] == []
    assert all(map(is_set, ["progan", "photos", "ldm_100", "real-vs-fake", "日本"]))
