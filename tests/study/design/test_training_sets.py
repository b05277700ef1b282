import numpy as np
import pandas as pd
import pytest

from dfl.data.manifest.provenance import with_provenance
from dfl.errors import ConfigError
from dfl.study.design.training_sets import rows_to_test, training_sets
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


def kinds(frame: pd.DataFrame, rows: np.ndarray) -> set[tuple[str, str]]:
    return {*zip(frame["dataset"][rows], frame["generator"][rows], strict=True)}


def test_training_sets__a_family_left_out_is_tested_on_all_of_its_images() -> None:
    frame = with_provenance(images(), {"g": ["g1", "g2"]})
    sets = training_sets(frame, ["leave_one_family_out"])
    assert list(sets) == ["without family g", "without family h"]
    found = sets["without family g"]
    assert kinds(frame, found.rows) == {
        ("alpha", "real"),
        ("beta", "real"),
        ("beta", "h"),
        ("gamma", "real"),
    }
    assert (found.seen, found.new) == (("beta",), "")
    tested = rows_to_test(frame, found)
    fakes = frame["family"] == "g"
    assert tested[fakes].all()
    others = frame[~fakes & (frame["label"] != -1)]
    assert (tested[others.index] == (others["split"] == "test")).all()


def test_training_sets__a_source_left_out_takes_its_copies_and_groups_with_it() -> None:
    frame = with_provenance(images())
    frame.loc[frame["generator"] == "g2", "source"] = "gamma"  # copies of photographs of gamma
    shared = frame.index[frame["generator"] == "h"][:3]
    frame.loc[shared, "group"] = frame["group"][frame["source"] == "gamma"].iloc[0]
    found = training_sets(frame, ["leave_one_source_out"])["without source gamma"]
    assert kinds(frame, found.left_out) == {("gamma", "real"), ("alpha", "g2")}
    assert not (found.rows & found.left_out).any()
    assert not found.rows[shared].any()
    assert found.rows[frame["generator"] == "h"].any()
    assert found.seen == ("beta",)


def test_training_sets__a_dataset_left_out_with_all_that_is_like_it() -> None:
    frame = with_provenance(images())
    sets = training_sets(frame, ["leave_one_family_and_source_out"])
    assert {name: found.new for name, found in sets.items()} == {
        "without family and source of alpha": "alpha",  # beta's photographs are alpha's
        "without family and source of gamma": "gamma",
    } | {"without family and source of beta": "beta"}
    gamma = sets["without family and source of gamma"]
    assert kinds(frame, gamma.rows) == {
        ("alpha", "real"),
        ("beta", "real"),
        ("alpha", "g2"),
        ("beta", "h"),
    }
    tested = rows_to_test(frame, gamma)
    known = (frame["label"] != -1).to_numpy()
    assert tested[(frame["dataset"] == "gamma") & known].all()
    # of alpha's fakes only those of the family that was left out, or new and old would be averaged
    assert not tested[(frame["generator"] == "g2").to_numpy()].any()


def test_training_sets__what_cannot_be_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    frame = with_provenance(images(), None, {"all": ["alpha", "beta", "gamma"]})
    ways = ["leave_one_source_out", "leave_one_family_out"]
    assert [*training_sets(frame, ways)] == [f"without family {name}" for name in ("g1", "g2", "h")]
    assert "without source all: nothing is left of one class" in caplog.text
    with pytest.raises(ConfigError, match="without source all: nothing is left of one class to tr"):
        training_sets(frame, ["combined", "leave_one_source_out"])


def test_training_sets__of_several_sources_one_at_a_time() -> None:
    """Fakes imitate photographs: only those of photographs that are left out are tested."""
    kinds = {"people": range(3), "grass": range(3, 6)}
    rows = [
        (f"{maker}/{kind}{n}", int(maker != "real"), f"by_{dataset}", maker, f"{kind}{n}", kind)
        for dataset in ("gan", "vae")
        for maker in ("real", dataset)
        for kind, numbers in kinds.items()
        for n in numbers
    ]
    columns = ["path", "label", "dataset", "generator", "group", "source"]
    frame = pd.DataFrame(rows, columns=columns).assign(split="train")
    frame.loc[frame["label"] == 1, "source"] = ""
    frame = with_provenance(frame)
    sets = training_sets(frame, ["leave_one_family_and_source_out"])
    assert [(name, each.new) for name, each in sets.items()] == [
        (f"without family of by_{maker} and source {source}", f"by_{maker}")
        for maker in ("gan", "vae")
        for source in ("people", "grass")
    ]
    found = sets["without family of by_gan and source people"]
    assert set(frame["path"][found.left_out]) == {
        f"{maker}/people{n}" for maker in ("gan", "real") for n in range(3)
    }
    assert set(frame["path"][found.rows]) == {
        f"{maker}/grass{n}" for maker in ("vae", "real") for n in range(3, 6)
    }


def test_training_sets__imitations_of_a_family_that_is_left_out_are_tested_by_split() -> None:
    """Or else no photograph that they imitate could be learnt from."""
    frame = with_provenance(images())
    real = frame.index[(frame["dataset"] == "gamma") & (frame["label"] == 0)]
    made = frame.index[(frame["dataset"] == "gamma") & (frame["label"] == 1)]
    frame.loc[made, "generator"] = frame.loc[made, "family"] = "pix2pix"
    frame.loc[made, ["group", "split"]] = frame.loc[real, ["group", "split"]].to_numpy()
    found = training_sets(frame, ["leave_one_family_out"])["without family pix2pix"]
    assert found.rows[real].all()
    assert not found.rows[made].any()
    tested = rows_to_test(frame, found)
    assert (tested[made] == (frame["split"][made] == "test")).all()
