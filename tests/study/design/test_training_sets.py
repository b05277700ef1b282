import pandas as pd
import pytest

from dfl.errors import ConfigError
from dfl.study.design.training_sets import training_sets
from tests.study.study_examples import images


def rows_of(frame: pd.DataFrame, name: str, way: str) -> set[tuple[str, str]]:
    chosen = frame[training_sets(frame, [way])[name].rows]
    assert (chosen["label"] != -1).all()
    return {(d, g) for d, g in zip(chosen["dataset"], chosen["generator"], strict=True)}


def test_training_sets__names_and_what_they_have_seen() -> None:
    ways = ["each", "combined", "all_but_one", "all_but_one_generator"]
    sets = training_sets(images(), ways)
    assert {name: found.seen for name, found in sets.items()} == {
        "alpha": ("alpha",),
        "beta": ("beta",),
        "gamma": ("gamma",),
        "combined": ("alpha", "beta", "gamma"),
        "all but alpha": ("beta", "gamma"),
        "all but beta": ("alpha", "gamma"),
        "all but gamma": ("alpha", "beta"),
        "without g1": ("alpha", "beta"),
        "without g2": ("alpha", "beta", "gamma"),
        "without h": ("alpha", "gamma"),
    }


def test_training_sets__rows() -> None:
    frame = images()
    alpha = {("alpha", "real"), ("alpha", "g1"), ("alpha", "g2")}
    beta = {("beta", "real"), ("beta", "h")}
    gamma = {("gamma", "real"), ("gamma", "g1")}
    assert rows_of(frame, "alpha", "each") == alpha
    assert rows_of(frame, "combined", "combined") == alpha | beta | gamma
    assert rows_of(frame, "all but beta", "all_but_one") == alpha | gamma
    without = rows_of(frame, "without g1", "all_but_one_generator")
    assert without == (alpha | beta | gamma) - {("alpha", "g1"), ("gamma", "g1")}
    everything = training_sets(frame, ["combined"])["combined"].rows
    assert everything.sum() == (frame["label"] != -1).sum() == 220


def test_training_sets__a_dataset_of_one_class_only_joins_others() -> None:
    frame = images()
    frame = frame[~((frame["dataset"] == "gamma") & (frame["label"] == 0))].reset_index(drop=True)
    sets = training_sets(frame, ["each", "combined", "all_but_one"])
    assert list(sets) == ["alpha", "beta", "combined", *(f"all but {d}" for d in sorted(SETS))]
    assert sets["combined"].seen == ("alpha", "beta", "gamma")


def test_training_sets__real_images_that_are_learnt_are_seen() -> None:
    frame = images()
    frame = frame[~((frame["dataset"] == "gamma") & (frame["label"] == 1))].reset_index(drop=True)
    sets = training_sets(frame, ["combined", "all_but_one"])
    assert sets["combined"].seen == ("alpha", "beta", "gamma")
    assert sets["all but gamma"].seen == ("alpha", "beta")


@pytest.mark.parametrize("name", ["macro", "pooled", "worst", "seen", "unseen"])
def test_training_sets__a_dataset_is_not_called_like_a_summary(name: str) -> None:
    with pytest.raises(ConfigError, match=f"a dataset is called '{name}', which a study calls"):
        training_sets(images().replace({"dataset": {"alpha": name}}), ["combined"])


SETS = {"alpha", "beta", "gamma"}


def test_training_sets__one_dataset_leaves_nothing_out() -> None:
    frame = images()
    beta = frame[frame["dataset"] == "beta"].reset_index(drop=True)
    ways = ["each", "combined", "all_but_one", "all_but_one_generator"]
    assert list(training_sets(beta, ways)) == ["beta"]
    assert list(training_sets(beta, ["combined"])) == ["combined"]
    with pytest.raises(ConfigError, match="no training set with real and fake"):
        training_sets(beta, ["all_but_one"])


def test_training_sets__a_dataset_named_combined_is_no_other_set() -> None:
    frame = images().replace({"dataset": {"alpha": "combined"}})
    with pytest.raises(ConfigError, match="'combined' names both a dataset"):
        training_sets(frame, ["each", "combined"])
    assert len(training_sets(frame, ["each", "each"])) == 3
