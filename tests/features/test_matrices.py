import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dfl.errors import FeatureError
from dfl.features import matrices as module
from dfl.features.matrices import FeatureRows, MatrixFile, StackedRows, WrittenMatrix
from dfl.features.store import FeatureStore
from dfl.folders import replace_folder
from tests.heads.small_tasks import feature_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return feature_folder(tmp_path_factory.mktemp("rows") / "features")


@pytest.fixture(scope="module")
def store(folder: Path) -> FeatureStore:
    return FeatureStore.open(folder)


def whole(folder: Path, *layers: str) -> np.ndarray:
    return np.hstack([np.load(folder / f"{layer}.pooled.npy") for layer in layers])


ORDERS = {
    "all": None,
    "none": np.empty(0, dtype=np.int64),
    "one": np.array([17]),
    "a gap": np.array([0, 1, 2, 9, 10, 59]),
    "small gaps": np.arange(0, 60, 3),
    "backwards": np.arange(60)[::-1],
    "twice": np.array([5, 5, 6, 5, 58]),
    "twice in a row": np.array([5, 5, 7]),
    "shuffled": np.random.default_rng(0).permutation(60),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layers", [("clip",), ("dino",), ("clip", "dino"), ("dino", "clip")])
@pytest.mark.parametrize("block", [1, 200, 2**22])
def test_rows__are_those_of_the_matrices(
    store: FeatureStore,
    order: str,
    layers: tuple[str, ...],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    chosen = ORDERS[order]
    expected = whole(store.path, *layers)
    if chosen is not None:
        expected = expected[chosen]

    rows = store.rows(layers, chosen)

    assert rows.shape == expected.shape
    assert len(rows) == len(expected)
    np.testing.assert_array_equal(rows.read(), expected)
    blocks = list(rows.blocks())
    assert len(blocks) == (
        0 if not len(rows) else -(-len(rows) // max(1, block // (4 * rows.shape[1])))
    )
    np.testing.assert_array_equal(np.concatenate([expected[:0], *blocks]), expected)
    half = np.arange(0, len(rows), 2)
    np.testing.assert_array_equal(rows.take(half), expected[half])
    np.testing.assert_array_equal(rows.chosen(half).read(), expected[half])


@pytest.mark.parametrize("order", ORDERS)
def test_rows__of_a_system_that_takes_no_advice(
    store: FeatureStore, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ADVICE", False)
    chosen = np.arange(60) if ORDERS[order] is None else ORDERS[order]

    rows = store.rows(None, chosen)

    np.testing.assert_array_equal(rows.read(), whole(store.path, "clip", "dino")[chosen])


@pytest.mark.skipif(not module._ADVICE, reason="the system takes no such advice")
def test_rows__are_announced_before_the_first_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []
    read, advise = os.preadv, os.posix_fadvise

    def reading(descriptor: int, buffers: list[memoryview], place: int) -> int:
        done.append(("read", place))
        return read(descriptor, buffers, place)

    def announcing(descriptor: int, place: int, size: int, advice: int) -> None:
        done.append(("announced", place))
        advise(descriptor, place, size, advice)

    monkeypatch.setattr(os, "preadv", reading)
    monkeypatch.setattr(os, "posix_fadvise", announcing)
    FeatureStore.open(folder).rows(["clip"], np.array([40, 3])).read()

    first, second = 128 + 16 * 3, 128 + 16 * 40
    assert done == [(what, at) for what in ("announced", "read") for at in (first, second)]


def test_rows__in_threads_and_pickled(folder: Path) -> None:
    rows = FeatureStore.open(folder).rows()
    expected = whole(folder, "clip", "dino")
    rows.read()
    again = pickle.loads(pickle.dumps(rows))

    np.testing.assert_array_equal(again.read(), expected)
    with ThreadPoolExecutor(4) as pool:
        for i, row in enumerate(pool.map(rows.take, [np.array([i]) for i in range(60)])):
            np.testing.assert_array_equal(row[0], expected[i])


def test_rows__leave_no_file_open(folder: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    rows = FeatureStore.open(folder).rows()
    rows.read()
    rows.chosen(np.array([1])).read()
    del rows

    assert len(list(Path("/dev/fd").iterdir())) == before


def test_rows__file_that_was_cut_or_removed(tmp_path: Path) -> None:
    file = tmp_path / "rows.f32"
    np.arange(12, dtype=np.float32).tofile(file)
    rows = FeatureRows([MatrixFile.at(file, 0, 4)], np.arange(3))
    assert rows.read()[2].tolist() == [8, 9, 10, 11]

    os.truncate(file, 40)
    with pytest.raises(FeatureError, match=r"rows\.f32: shorter than it was; extract it again"):
        rows.read()
    again = FeatureRows([MatrixFile.at(file, 0, 4)], np.arange(3))
    file.unlink()
    with pytest.raises(FeatureError, match=r"rows\.f32: cannot be read \(No such file"):
        again.read()


def test_rows__of_a_folder_that_was_replaced(tmp_path: Path) -> None:
    """What is open goes on; what is opened later must not get the rows of another folder."""
    folder = feature_folder(tmp_path / "features")
    store = FeatureStore.open(folder)
    opened, unopened = store.rows(), store.rows()
    expected = opened.read()
    shutil.copytree(folder, folder.with_name("new"))
    replace_folder(folder.with_name("new"), folder)

    np.testing.assert_array_equal(opened.read(), expected)
    for late in (unopened, pickle.loads(pickle.dumps(opened))):
        with pytest.raises(FeatureError, match=r"\.npy: was replaced or removed while it was in"):
            late.read()
    for use in (store.matrix, store.rows):
        with pytest.raises(FeatureError, match=f"{folder.name}: was replaced or removed"):
            use()
    FeatureStore.open(folder).rows().read()


def test_matrix_file__of_what_is_no_map() -> None:
    with pytest.raises(FeatureError, match="not stored row by row; extract it again"):
        MatrixFile.of(np.zeros((3, 2), dtype=np.float32))


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

    monkeypatch.setattr("dfl.features.matrices._fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        _create(tmp_path / "a.npy", (20, 3))


def test_written_matrix__file_system_that_cannot_reserve(tmp_path: Path, monkeypatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("dfl.features.matrices._fallocate", unsupported)
    np.testing.assert_array_equal(_create(tmp_path / "a.npy", (2, 3), (slice(2), 1)), 1)
    (tmp_path / "a.npy").unlink()
    with pytest.raises(OSError, match="No space left"):  # nor is there room
        _create(tmp_path / "a.npy", (2**50, 3))


def test_written_matrix__room_is_taken_without_writing(tmp_path: Path, monkeypatch) -> None:
    """The C library's own way writes to every block of a file on NFSv3."""
    monkeypatch.setattr("os.posix_fallocate", lambda *_: 1 / 0)
    _create(tmp_path / "a.npy", (2**18, 4))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 2**22


def test_stacked_rows__are_those_of_the_matrices_one_below_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore.open(folder)
    chosen = [np.array([5, 2, 9]), np.arange(0), np.array([1]), np.arange(6)]
    stacked = StackedRows([store.rows(["clip"], rows) for rows in chosen])
    expected = np.concatenate([whole(folder, "clip")[rows] for rows in chosen])
    assert stacked.shape == expected.shape
    assert len(stacked) == 10
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 2 * expected.shape[1])
    blocks = list(stacked.blocks())
    assert len(blocks) > 4
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    positions = np.array([9, 0, 3, 3, 2, 8])
    np.testing.assert_array_equal(stacked.take(positions), expected[positions])
