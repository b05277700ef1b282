from pathlib import Path

import numpy as np
import pytest

from dfl.features.written_matrix import WrittenMatrix


def _create(path: Path, shape: tuple[int, int], *assignments) -> np.ndarray:
    with WrittenMatrix.create(path, shape) as matrix:
        for rows, values in assignments:
            matrix[rows] = values
    return np.load(path, mmap_mode="r", allow_pickle=False)


def test_written_matrix__as_numpy_would_assign(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 3))
    order = rng.permutation(20)[:9]
    assignments = [
        (slice(2, 15), 7.0),
        (order, values),
        (np.array([], dtype=np.int64), np.empty((0, 3))),
        (slice(0, 20, 6), np.arange(4)[:, None]),
        (np.array([3, 4, 5]), [1, 2, 3]),
    ]
    expected = np.zeros((20, 3), dtype=np.float32)
    for rows, new in assignments:
        expected[rows] = new
    np.testing.assert_array_equal(_create(tmp_path / "a.npy", (20, 3), *assignments), expected)
    np.testing.assert_array_equal(_create(tmp_path / "b.npy", (20, 3), (..., 5)), 5)
    np.save(tmp_path / "c.npy", expected)
    assert (tmp_path / "c.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()


def test_written_matrix__empty(tmp_path: Path) -> None:
    assert _create(tmp_path / "a.npy", (0, 3), (slice(None), 1.0)).shape == (0, 3)


def test_written_matrix__row_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="row 20 of 20"):
        _create(tmp_path / "a.npy", (20, 3), (np.array([20]), 1.0))


def test_written_matrix__no_room_is_met_at_once(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        _create(tmp_path / "a.npy", (20, 3))


def test_written_matrix__file_system_that_cannot_reserve(tmp_path: Path, monkeypatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.posix_fallocate", unsupported)
    np.testing.assert_array_equal(_create(tmp_path / "a.npy", (2, 3), (slice(2), 1)), 1)
