import numpy as np
import pytest

from dfl.study.analysis.effects import check_claims, comparable, effects
from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.judge import Results
from dfl.study.design.settings import Claim
from tests.study.study_tables import cases, results

BEST = {"lda": 0.80, "svm": 0.75, "bayes": 0.60}


def by_head(row) -> float:
    value = BEST[row["head"]] + 0.02 * (row["features"] == "dino")
    return value - 0.2 * (row["scope"] == "unseen")


@pytest.fixture
def crossed() -> Estimator:
    rows = cases(
        head=list(BEST),
        features=["clip", "dino"],
        train_set=["alpha", "beta"],
        scope=["seen", "unseen", "macro"],
    )
    return Estimator(results(rows, by_head), "ap", "none")


def test_effects__level_by_level(crossed: Estimator) -> None:
    table = effects(crossed).set_index(["axis", "level"])
    for scope, less in (("on the datasets trained on", 0), ("on datasets not trained on", 0.2)):
        for name, value in BEST.items():
            row = table.loc[(f"head, {scope}", name)]
            assert row["value"] == pytest.approx(value + 0.01 - less)
            assert row["low"] < row["value"] < row["high"]
            assert row["n_cells"] == 4
            if name == "lda":
                assert np.isnan(row[["difference", "diff_low", "diff_high"]].astype(float)).all()
            else:
                assert row["difference"] == pytest.approx(value - 0.8)
                assert row["diff_low"] < row["difference"] < row["diff_high"] < 0
        difference = (
            table.loc[(f"features, {scope}", "dino")] - table.loc[(f"features, {scope}", "clip")]
        )
        assert difference["value"] == pytest.approx(0.02)
    axes = {axis.split(",")[0] for axis, _ in table.index}
    assert axes == {"head", "features", "train set"}  # one reduction, one condition: no effect
    # training sets have seen different datasets: only on all of them are they compared
    assert {a for a, _ in table.index if a.startswith("train")} == {"train set, on all datasets"}


def test_effects__on_what_exists_at_every_level(crossed: Estimator) -> None:
    # svm was not tried on the harder features: compared is what all three have
    rows = cases(head=list(BEST), features=["easy", "hard"])
    rows = [row for row in rows if (row["head"], row["features"]) != ("bayes", "hard")]
    made = results(rows, lambda row: BEST[row["head"]] - 0.4 * (row["features"] == "hard"))
    table = effects(Estimator(made, "ap", "none")).set_index(["axis", "level"])
    found = table.loc["head, on the datasets trained on"]
    assert found["value"].to_dict() == pytest.approx(BEST)
    assert set(found["n_cells"]) == {1}


def test_effects__conditions_are_named_after_training_and_testing() -> None:
    rows = [
        *cases(),
        *cases({"train_condition": "blur", "test_condition": "blur"}),
        *cases({"test_condition": "blur"}),
    ]
    made = results(rows, lambda row: 0.9 if row["train_condition"] == "none" else 0.7)
    levels = effects(Estimator(made, "ap", "none")).set_index("level")["value"]
    assert levels.to_dict() == pytest.approx({"none": 0.9, "blur": 0.7, "none → blur": 0.9})


def test_effects__of_the_first_grid_alone() -> None:
    rows = [*cases(head=["lda", "svm"]), *cases({"grid": "more", "head": "bayes"})]
    table = effects(Estimator(results(rows, by_head), "ap", "none"))
    assert set(table["level"]) == {"lda", "svm"}


def verdict(estimator: Estimator, **claim) -> dict[str, object]:
    (row,) = check_claims(estimator, [Claim("it is so", **claim)]).to_dict("records")
    return row


def test_claims__held(crossed: Estimator) -> None:
    row = verdict(crossed, axis="head", better=["lda"])
    assert (row["statement"], row["verdict"]) == ("it is so", "held")
    assert row["difference"] == pytest.approx(0.05)  # against the best of the others
    assert 0 < row["low"] < 0.05 < row["high"]
    assert row["evidence"] == (
        "lda against svm decides; means over 4 cells each: lda 0.810, svm 0.760, bayes 0.610"
    )
    both = verdict(crossed, axis="head", better=["svm", "lda"], scope="unseen")
    assert both["verdict"] == "held"
    assert both["difference"] == pytest.approx(0.15)  # the worst of them


def test_claims__did_not_hold(crossed: Estimator) -> None:
    row = verdict(crossed, axis="head", better=["svm", "bayes"])
    assert row["verdict"] == "did not hold"
    assert row["difference"] == pytest.approx(-0.2)
    assert str(row["evidence"]).startswith("bayes against lda decides")
    assert verdict(crossed, axis="features", better=["clip"])["verdict"] == "did not hold"
    only = verdict(crossed, axis="head", better=["svm"], others=["bayes"])
    assert only["verdict"] == "held"
    assert "lda" not in str(only["evidence"])


def test_claims__undecided() -> None:
    rows = cases(head=["lda", "svm"])
    made = results(rows, lambda row: 0.8 + 0.01 * (row["head"] == "lda"), noise=0.05)
    row = verdict(Estimator(made, "ap", "none"), axis="head", better=["lda"])
    assert row["verdict"] == "undecided"
    assert row["low"] < 0 < row["high"]


def about_equal(names: list[str], *, scale: float, seed: int) -> Estimator:
    """Make results of heads that differ by little, as test images measure them."""
    rng = np.random.default_rng(seed)
    truth = dict(zip(names, 0.8 + rng.normal(scale=scale, size=len(names)), strict=True))
    rows = cases(head=names)
    made = results(rows, lambda row: truth[row["head"]], noise=0.02, seed=seed)
    return Estimator(made, "ap", "none")


def test_claims__undecided_shows_an_interval_that_holds_0() -> None:
    """One pair contradicts at 95 %, though not at the level that many pairs call for."""
    names = [f"head{i}" for i in range(5)]
    shown = []
    for seed in range(60):
        estimator = about_equal(names, scale=0.01, seed=seed)
        row = verdict(estimator, axis="head", better=names[:2])
        if row["verdict"] == "undecided":
            shown.append((row["low"], row["high"]))
    assert len(shown) > 30
    assert all(low <= 0 <= high for low, high in shown)


def test_claims__are_not_refuted_by_a_tail_without_replicates() -> None:
    made = results(cases(head=list(BEST)), lambda row: BEST[row["head"]])
    few = Results(made.table, made.replicates[:, :30])
    against = {"axis": "head", "better": ["bayes"]}
    assert verdict(Estimator(made, "ap", "none"), **against)["verdict"] == "did not hold"
    row = verdict(Estimator(few, "ap", "none"), **against)
    assert row["verdict"] == "undecided"
    assert str(row["evidence"]).endswith("; too few replicates for 2 pairs")


def test_claims__equally_good_levels_are_seldom_said_not_to_hold() -> None:
    names = [f"head{i}" for i in range(9)]
    verdicts = []
    for seed in range(40):
        estimator = about_equal(names, scale=0.02, seed=seed)
        verdicts.append(verdict(estimator, axis="head", better=names[:3]))
    wrong = sum(row["verdict"] == "did not hold" for row in verdicts)
    assert wrong <= 6  # about 5 % would be right; every pair at 5 % would make it 50 %


def test_claims__of_a_metric_that_is_better_when_lower() -> None:
    made = results(cases(head=list(BEST)), lambda row: 1 - BEST[row["head"]], metric="eer")
    estimator = Estimator(made, "eer", "none")
    row = verdict(estimator, axis="head", better=["lda"])
    assert row["verdict"] == "held"
    assert row["difference"] == pytest.approx(0.05)
    assert 0 < row["low"] < row["high"]
    assert str(row["evidence"]).endswith("lda 0.200, svm 0.250, bayes 0.400")
    pair = verdict(estimator, axis="head", better=["lda", "svm"])
    assert (pair["verdict"], pair["difference"]) == ("held", pytest.approx(0.15))
    assert verdict(estimator, axis="head", better=["bayes"])["verdict"] == "did not hold"


@pytest.mark.parametrize(
    ("claim", "evidence"),
    [
        (
            {"axis": "head", "better": ["knn"]},
            "no head knn in the first grid, on which claims rest",
        ),
        (
            {"axis": "head", "better": ["lda"], "others": ["x", "y"]},
            "no head x, y in the first grid, on which claims rest",
        ),
        ({"axis": "reduction", "better": ["none"]}, "nothing to compare with"),
        ({"axis": "head", "better": list(BEST)}, "nothing to compare with"),
    ],
)
def test_claims__not_tested(crossed: Estimator, claim, evidence: str) -> None:
    row = verdict(crossed, **claim)
    assert (row["verdict"], row["evidence"]) == ("not tested", evidence)
    assert np.isnan([row["difference"], row["low"], row["high"]]).all()


def test_claims__none() -> None:
    made = results(cases(), lambda row: 0.5)
    assert check_claims(Estimator(made, "ap", "none"), []).empty


def test_comparable__only_what_every_level_has() -> None:
    made = [(head, features) for head, tried in (("a", "xyz"), ("b", "xy")) for features in tried]
    rows = [cases({"head": head, "features": features})[0] for head, features in made]
    table = results(rows, lambda row: 0.5).table.assign(condition="none")
    kept = comparable(table, "head")
    assert kept is not None
    assert kept.index.tolist() == [0, 1, 3, 4]
    assert comparable(table.iloc[:0], "head") is None
