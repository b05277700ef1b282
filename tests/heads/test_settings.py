import math

import numpy as np
import pytest

from dfl.heads.settings import BottleneckSettings


@pytest.mark.parametrize("value", [1, np.int64(7)])
@pytest.mark.parametrize("name", ["code_dim", "epochs", "batch_size"])
def test_counts__usable(name: str, value: object) -> None:
    assert BottleneckSettings(**{name: value}).problem is None


@pytest.mark.parametrize("value", [[], [3, 4], (np.int32(2),)])
def test_widths__usable(value: object) -> None:
    assert BottleneckSettings(hidden_dims=value).problem is None


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
@pytest.mark.parametrize("name", ["code_dim", "epochs", "batch_size"])
def test_counts__unusable(name: str, value: object) -> None:
    problem = BottleneckSettings(**{name: value}, noise=-1).problem

    assert problem.startswith(f"{name} is {value!r}, ")
    assert problem.endswith("must be a whole number of at least 1")


@pytest.mark.parametrize("value", [[4, 0], (1.5,), ["a"]])
def test_widths__unusable(value: object) -> None:
    problem = BottleneckSettings(hidden_dims=value, noise=-1).problem

    assert problem.startswith(f"hidden_dims is {list(value)!r}, ")
    assert problem.endswith("must be a whole number of at least 1")


@pytest.mark.parametrize("value", [0, 0.5, 3, np.float32(0.1)])
def test_weights__usable(value: object) -> None:
    assert BottleneckSettings(noise=value).problem is None


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None])
@pytest.mark.parametrize("name", ["noise", "kl_weight", "classify_weight", "learning_rate"])
def test_weights__unusable(name: str, value: object) -> None:
    expected = f"{name} is {value!r}, must be a number of at least 0"
    assert BottleneckSettings(**{name: value}).problem == expected
