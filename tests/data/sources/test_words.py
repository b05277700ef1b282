import pytest

from dfl.data.sources.words import split_in, split_word


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
