import pytest

from dfl.errors import ConfigError
from dfl.study.design.grid import Grid, choose_features, condition_plan, grid_cells
from tests.study.study_examples import PARTS, cell

AXES = {
    "layers": PARTS,
    "reductions": ["none", "pca"],
    "heads": ["lda", "svm"],
    "train_sets": ["alpha", "beta"],
    "train_conditions": ["none"],
    "seeds": [0, 1],
}


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (["both"], {"none": ["none"], "blur": ["blur"], "jpeg": ["jpeg"]}),
        (["train"], {"none": ["none"], "blur": ["none"], "jpeg": ["none"]}),
        (["test"], {"none": ["none", "blur", "jpeg"]}),
        (
            ["both", "train", "test"],
            {"none": ["none", "blur", "jpeg"], "blur": ["blur", "none"], "jpeg": ["jpeg", "none"]},
        ),
    ],
)
def test_condition_plan(use, expected) -> None:
    assert condition_plan(["none", "blur", "jpeg"], use) == expected


def test_condition_plan__draws_are_for_training() -> None:
    found = condition_plan(["none", "blur"], ["both"], ["degraded"])
    assert found == {"none": ["none"], "blur": ["blur"], "degraded": ["none"]}
    found = condition_plan(["none", "blur"], ["test"], ["degraded"])
    assert found == {"none": ["none", "blur"], "degraded": ["none", "blur"]}


def test_condition_plan__one_condition() -> None:
    assert condition_plan(["none"], ["test", "train", "both", "both"]) == {"none": ["none"]}


def test_choose_features__each_and_all() -> None:
    assert choose_features(Grid(), PARTS) == [("one.a",), ("one.b",), ("two.pooled",)]
    fused = choose_features(Grid(features="all"), PARTS)
    assert len(fused) == len(set(fused)) == 7
    assert fused[-1] == tuple(PARTS)
    assert [len(layers) for layers in fused] == [1, 1, 1, 2, 2, 2, 3]


def test_choose_features__names_of_layers_and_backbones() -> None:
    grid = Grid(features=[["two"], ["one"], ["one", "one.b"], ["one.b", "two"]])
    assert choose_features(grid, PARTS) == [
        ("two.pooled",),
        ("one.a", "one.b"),
        ("one.b", "two.pooled"),
    ]


def test_choose_features__one_order_whatever_the_config_says() -> None:
    # a fused backbone gives the layers of a backbone side by side: so must a head take them
    grid = Grid(features=[["one.b", "two", "one.a"], ["two", "one"]])
    assert choose_features(grid, PARTS) == [("one.a", "one.b", "two.pooled")]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([["one.c"]], "no layer 'one.c'; the backbones give: one.a, one.b, two.pooled"),
        ([["on"]], "no layer 'on'"),
        ([["one"], []], "an empty set"),
        ([], "features: no set"),
    ],
)
def test_choose_features__mistakes(features, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_features(Grid(features=features), PARTS)


def test_grid_cells__every_choice_meets_every_other_once() -> None:
    cells = grid_cells({"frozen": Grid()}, **AXES)
    assert len(cells) == len(set(cells)) == 3 * 2 * 2 * 2 * 2
    shared = [(c.seed, c.train_condition, c.train_set, c.features, c.reduction) for c in cells]
    together = [key for i, key in enumerate(shared) if i == 0 or shared[i - 1] != key]
    assert len(together) == len(set(together)) == 24  # side by side, so that they are one group


def test_grid_cells__a_cell_of_two_grids_is_the_first_ones() -> None:
    small = Grid(features=[["one.a"], ["one", "two"]], reductions=["none"], heads=["lda"])
    cells = grid_cells({"small": small, "rest": Grid(heads=["lda", "svm"])}, **AXES)
    names = {(c.features, c.reduction, c.head, c.train_set, c.seed) for c in cells}
    assert len(cells) == len(names) == 48 + 4
    assert sum(c.grid == "small" for c in cells) == 2 * 2 * 2
    assert cell(grid="small") in cells
    assert cell(grid="rest") not in cells


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (Grid(reductions=["ica"]), "grids.mine.reductions: no 'ica'; there are: none, pca"),
        (Grid(heads=["lda", "x"]), "grids.mine.heads: no 'x'; there are: lda, svm"),
        (Grid(heads=[]), "grids.mine.heads: empty"),
        (Grid(reductions=[]), "grids.mine.reductions: empty"),
        (Grid(features=[["three"]]), "no layer 'three'"),
    ],
)
def test_grid_cells__mistakes_name_the_setting(grid: Grid, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid_cells({"mine": grid}, **AXES)
