import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dfl.errors import FeatureError
from dfl.features import rows as module
from dfl.features.rows import FeatureRows, MatrixFile
from dfl.features.store import FeatureStore
from dfl.folders import replace_folder
from tests.heads.small_tasks import feature_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return feature_folder(tmp_path_factory.mktemp("rows") / "features")


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
    folder: Path, order: str, layers: tuple[str, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    chosen = ORDERS[order]
    expected = whole(folder, *layers)
    if chosen is not None:
        expected = expected[chosen]

    rows = FeatureRows.of(FeatureStore.open(folder), layers, chosen)

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
    folder: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ADVICE", False)
    chosen = np.arange(60) if ORDERS[order] is None else ORDERS[order]

    rows = FeatureRows.of(FeatureStore.open(folder), None, chosen)

    np.testing.assert_array_equal(rows.read(), whole(folder, "clip", "dino")[chosen])


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
    FeatureRows.of(FeatureStore.open(folder), ["clip"], np.array([40, 3])).read()

    first, second = 128 + 16 * 3, 128 + 16 * 40
    assert done == [(what, at) for what in ("announced", "read") for at in (first, second)]


def test_rows__in_threads_and_pickled(folder: Path) -> None:
    rows = FeatureRows.of(FeatureStore.open(folder))
    expected = whole(folder, "clip", "dino")
    rows.read()
    again = pickle.loads(pickle.dumps(rows))

    np.testing.assert_array_equal(again.read(), expected)
    with ThreadPoolExecutor(4) as pool:
        for i, row in enumerate(pool.map(rows.take, [np.array([i]) for i in range(60)])):
            np.testing.assert_array_equal(row[0], expected[i])


def test_rows__leave_no_file_open(folder: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    rows = FeatureRows.of(FeatureStore.open(folder))
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
    opened, unopened = FeatureRows.of(store), FeatureRows.of(store)
    expected = opened.read()
    shutil.copytree(folder, folder.with_name("new"))
    replace_folder(folder.with_name("new"), folder)

    np.testing.assert_array_equal(opened.read(), expected)
    for late in (unopened, pickle.loads(pickle.dumps(opened))):
        with pytest.raises(FeatureError, match=r"\.npy: was replaced or removed while it was in"):
            late.read()
    for use in (store.matrix, lambda: FeatureRows.of(store)):
        with pytest.raises(FeatureError, match=f"{folder.name}: was replaced or removed"):
            use()
    FeatureRows.of(FeatureStore.open(folder)).read()


def test_matrix_file__of_what_is_no_map() -> None:
    with pytest.raises(FeatureError, match="not stored row by row; extract it again"):
        MatrixFile.of(np.zeros((3, 2), dtype=np.float32))
