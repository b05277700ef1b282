import numpy as np
import pandas as pd
import pytest

from dfl import texts
from dfl.texts import codes, in_one_piece, repeated


def make(rows: int, names: int, seed: int = 0) -> "pd.Series[str]":
    rng = np.random.default_rng(seed)
    values = ["é" * (i % 5) + f"/{i}" * (i % 4) for i in rng.integers(0, names, rows).tolist()]
    return pd.Series(values, dtype="str")


@pytest.mark.parametrize("objects", [False, True])
def test_codes__same_groups_as_pandas(objects: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_BLOCK_BYTES", 256)
    column = make(1000, 300).astype("object") if objects else make(1000, 300)
    code = codes(column)
    assert sorted(set(code.tolist())) == list(range(column.nunique()))
    pairs = pd.DataFrame({"text": column, "code": code}).drop_duplicates()
    assert len(pairs) == column.nunique()


def test_codes__texts_that_differ_in_zero_bytes_or_not_at_all() -> None:
    assert len(set(codes(pd.Series(["", "\0", "\0\0", "a" * 8, "a" * 8 + "\0"])).tolist())) == 5
    assert codes(pd.Series(["", ""])).tolist() == [0, 0]
    assert codes(pd.Series([], dtype="str")).tolist() == []


def test_codes__in_order_where_all_differ() -> None:
    assert codes(pd.Series(["c", "a", "b"])).tolist() == [0, 1, 2]


def test_codes__texts_of_the_same_bits_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_hash", lambda column: np.zeros(len(column), dtype=np.uint64))
    assert codes(pd.Series(["a", "b", "a"])).tolist() == [0, 1, 0]


def test_codes__long_texts_and_slices() -> None:
    assert codes(pd.Series(["x" * 5000, "y", "x" * 5000])).tolist() == [0, 1, 0]
    assert codes(pd.Series(["q", "a", "b", "a"])[1:]).tolist() == [0, 1, 0]


def test_repeated__as_pandas_finds_it() -> None:
    frame = pd.DataFrame({"path": make(500, 90), "dataset": make(500, 2, seed=1)})
    for columns in (["path"], ["path", "dataset"]):
        assert repeated(frame, columns).tolist() == frame.duplicated(columns).tolist()
    assert not repeated(frame[:0], ["path"]).any()


def test_in_one_piece__same_texts() -> None:
    pieces = [make(10, 5), make(20, 5)]
    column = pd.concat(pieces, ignore_index=True).rename("path")
    pd.testing.assert_series_equal(in_one_piece(column), column)
