import math

import numpy as np
import pytest

from dfl.heads.modules.bottleneck_ranges import out_of_range


@pytest.mark.parametrize("value", [1, np.int64(7), [], [3, 4], (np.int32(2),)])
def test_counts__usable(value: object) -> None:
    assert out_of_range({"width": value}, {}) is None


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None, [4, 0], (1.5,), ["a"]])
def test_counts__unusable(value: object) -> None:
    problem = out_of_range({"width": value}, {"noise": -1})

    assert problem.startswith(f"width is {value!r}, ")
    assert problem.endswith("must be a whole number of at least 1")


@pytest.mark.parametrize("value", [0, 0.5, 3, np.float32(0.1)])
def test_weights__usable(value: object) -> None:
    assert out_of_range({}, {"noise": value}) is None


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None])
def test_weights__unusable(value: object) -> None:
    expected = f"noise is {value!r}, must be a number of at least 0"
    assert out_of_range({"width": 1}, {"noise": value}) == expected
