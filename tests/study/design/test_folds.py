import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from dfl.data.manifest.provenance import with_provenance
from dfl.study.design.folds import MOST_FOLDS, nested_folds


def frame_of(sets: list[tuple[str, int, str, str, int]]) -> pd.DataFrame:
    """Rows of (dataset, label, family, source, count), each image a group of its own."""
    rows = [
        (f"{d}-{label}-{family}-{source}-{n}", label, d, family or "real", family, source)
        for d, label, family, source, count in sets
        for n in range(count)
    ]
    columns = ["path", "label", "dataset", "generator", "family", "source"]
    frame = pd.DataFrame(rows, columns=columns)
    return with_provenance(frame.assign(group=frame["path"], split="train"))


SETS = [
    *(("photos", 0, "", f"s{n}", 10 + n) for n in range(4)),
    *((f"made{n}", 1, f"f{n}", "", 6 + n) for n in range(6)),
    ("both", 0, "", "camera", 8),
    ("both", 1, "twin", "", 8),
]


def test_nested_folds__nothing_is_validated_by_a_head_that_knows_it() -> None:
    frame = frame_of([*SETS, ("copies", 1, "vae", "s1", 9)])
    learnt = np.ones(len(frame), dtype=bool)
    learnt[:3] = False
    folds = nested_folds(frame, learnt, matched=["both"])
    assert folds.count == MOST_FOLDS
    copies = (frame["family"] == "vae").to_numpy()
    assert ((folds.validated >= 0) == learnt)[~copies].all()
    for fold in range(folds.count):
        held, own = frame[folds.validated == fold], frame[folds.learnt(fold)]
        assert set(own["label"]) == {0, 1}
        assert not set(held["family"][held["label"] == 1]) & set(own["family"])
        assert not set(held["source"][held["label"] == 0]) & set(own["source"])
        assert not learnt[:3].any() or not set(own.index) & {0, 1, 2}
    both = folds.validated[(frame["dataset"] == "both").to_numpy()]
    assert len(set(both)) == 1  # or a head would know its photographs


def test_nested_folds__what_shares_a_group_is_not_learnt() -> None:
    frame = frame_of(SETS)
    fakes = frame.index[frame["family"].isin(["f0", "f5"])]
    frame.loc[fakes[[0, -1]], "group"] = "one prompt"
    folds = nested_folds(frame, np.ones(len(frame), dtype=bool))
    first, last = folds.validated[fakes[[0, -1]]]
    assert first != last
    assert not folds.learnt(first)[fakes[-1]]
    assert not folds.learnt(last)[fakes[0]]


def test_nested_folds__one_source_is_dealt_by_groups() -> None:
    frame = frame_of([s for s in SETS if s[1] == 1] + [("photos", 0, "", "only", 40)])
    frame.loc[frame["label"] == 0, "group"] = [f"g{n // 4}" for n in range(40)]
    folds = nested_folds(frame, np.ones(len(frame), dtype=bool), matched=["both"])
    assert folds.count == MOST_FOLDS
    for fold in range(folds.count):
        held, own = frame[folds.validated == fold], frame[folds.learnt(fold)]
        assert set(held["label"]) == set(own["label"]) == {0, 1}
        assert not set(held["group"]) & set(own["group"])


def test_nested_folds__imitations_are_validated_beside_their_photographs() -> None:
    rows = [
        (f"{maker}/{kind}{n}", int(maker != "real"), maker, f"{kind}{n}", kind)
        for maker in ("real", "gan", "vae")
        for kind in ("people", "grass")
        for n in range(4)
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "generator", "group", "source"])
    frame.loc[frame["label"] == 1, "source"] = ""
    frame = with_provenance(frame.assign(dataset="d", split="train"))
    folds = nested_folds(frame, np.ones(len(frame), dtype=bool), matched=["d"])
    assert folds.count == 2
    found = []
    for fold in range(2):
        held, own = frame[folds.validated == fold], frame[folds.learnt(fold)]
        assert len(held) == len(own) == 8  # a generator's imitations of a kind, and the kind
        assert set(held["group"]) & set(own["group"]) == set()
        found.append((set(held["generator"]) - {"real"}, set(own["generator"]) - {"real"}))
    assert sorted(map(str, found)) == ["({'gan'}, {'vae'})", "({'vae'}, {'gan'})"]


def test_nested_folds__too_little_to_divide() -> None:
    frame = frame_of([("a", 0, "", "s", 5), ("a", 1, "f", "", 1)])
    assert nested_folds(frame, np.ones(len(frame), dtype=bool)).count == 0


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=7),
    st.lists(st.integers(1, 9), min_size=2, max_size=7),
    st.integers(0, 3),
)
def test_nested_folds__every_fold_has_both_classes(
    fakes: list[int], reals: list[int], seed: int
) -> None:
    sets = [(f"m{n}", 1, f"f{n}", "", count) for n, count in enumerate(fakes)]
    sets += [(f"p{n}", 0, "", f"s{n}", count) for n, count in enumerate(reals)]
    frame = frame_of(sets).sample(frac=1, random_state=seed).reset_index(drop=True)
    folds = nested_folds(frame, np.ones(len(frame), dtype=bool), seed=seed)
    assert folds.count == min(len(fakes), len(reals), MOST_FOLDS)
    for fold in range(folds.count):
        assert set(frame["label"][folds.validated == fold]) == {0, 1}
        assert set(frame["label"][folds.learnt(fold)]) == {0, 1}


def test_nested_folds__matched_sets_of_one_source_are_not_all_joined() -> None:
    sets = [(f"m{n}", 1, f"f{n}", "", 5) for n in range(3)]
    sets += [(f"m{n}", 0, "", f"s{min(n, 1)}", 5) for n in range(3)]
    frame = frame_of(sets)
    matched = ["m0", "m1", "m2"]  # the last two share their photographs
    folds = nested_folds(frame, np.ones(len(frame), dtype=bool), matched=matched)
    assert folds.count == 2
    chained = frame.replace({"source": {"s1": "s0"}})
    assert nested_folds(chained, np.ones(len(frame), dtype=bool), matched=matched).count > 1
