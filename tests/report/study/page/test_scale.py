import math

import numpy as np
import pytest

from dfl.report.study.page.scale import axis_over


@pytest.mark.parametrize("seed", range(20))
def test_axis_over__holds_all_values_between_round_ticks(seed):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 1, 5) * rng.choice([0.05, 0.3, 1.0])
    axis = axis_over(values.tolist())
    assert 0 <= axis.low <= values.min()
    assert values.max() <= axis.high <= 1
    assert 1 <= axis.n_steps <= 5
    assert [at for at, _ in axis.ticks] == pytest.approx(np.linspace(0, 100, axis.n_steps + 1))
    assert [v for _, v in axis.ticks] == pytest.approx(
        np.arange(axis.n_steps + 1) * axis.step + axis.low
    )
    assert axis.place(float(values[0])) == pytest.approx(
        100 * (values[0] - axis.low) / (axis.high - axis.low), abs=0.01
    )


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_axis_over__one_value_has_room(value):
    axis = axis_over([value, None, math.nan])
    assert axis.high - axis.low >= 0.02
    assert axis.low <= value <= axis.high


def test_axis_over__nothing_is_the_whole_range():
    axis = axis_over([None, math.nan])
    assert (axis.low, axis.high) == (0, 1)
    assert axis.place(None) is None


@pytest.mark.parametrize("reach", [0.0, 0.004, 0.138, 0.9])
def test_axis_over__differences_have_zero_in_the_middle(reach):
    axis = axis_over([-reach, reach], lowest=-1.0)
    assert axis.place(0.0) == 50
    assert axis.high >= reach
