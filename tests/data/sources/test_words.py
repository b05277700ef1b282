import pytest

from dfl.data.sources.words import label_word, split_in, split_word


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
    for text in ("1", "1.0", "True", "yes"):
        assert label_word(text, column) == yes
    for text in ("0", "FALSE", "no"):
        assert label_word(text, column) == 1 - yes
    assert label_word("real", column) == 0
    assert label_word("fake", column) == 1
