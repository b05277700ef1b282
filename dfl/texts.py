"""Columns of a million texts: which are the same, without a Python object or a table of each.

pandas and Arrow find repeated texts by a hash table that copies every text, a few hundred MiB for
a million paths. Here a text is 64 bits, and where two have the same bits the texts are compared.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

__all__ = ["codes", "give_back", "in_one_piece", "repeated"]

_BLOCK_BYTES: Final = 2**22
_LONGEST: Final = 2**12  # bytes of a text; a column of longer ones is left to pandas
_PRIMES: Final = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)

Bits = npt.NDArray[np.uint64]


def codes(column: "pd.Series[str]") -> npt.NDArray[np.int64]:
    """Number the distinct texts of a column.

    Args:
        column: Texts, shape ``(N,)``.

    Returns:
        0, 1, ... up to one less than there are distinct texts, shape ``(N,)``; in order where no
        two are the same.
    """
    texts = _arrow_texts(column)
    bits = None if texts is None else _hash(texts)
    if texts is None or bits is None:
        return pd.factorize(column)[0].astype(np.int64, copy=False)
    order = np.argsort(bits, kind="stable")
    ordered = bits[order]
    del bits
    new = np.append(True, ordered[1:] != ordered[:-1])[: len(order)]
    if new.all():
        return np.arange(len(order))
    code = np.empty(len(order), dtype=np.int64)
    code[order] = np.cumsum(new) - 1
    again = order[~new]
    first = order[new][code[again]]
    if not texts.take(pa.array(again)).equals(texts.take(pa.array(first))):
        return pd.factorize(column)[0].astype(np.int64, copy=False)  # other texts of the same bits
    return code


def repeated(frame: pd.DataFrame, columns: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Find the rows whose values were in a row before, as ``frame.duplicated`` does.

    Args:
        frame: A table.
        columns: Which columns count; the first is one of texts.

    Returns:
        Shape ``(N,)``.
    """
    code = codes(frame[columns[0]])
    if not len(code) or code.max() + 1 == len(code):
        return np.zeros(len(code), dtype=bool)
    others = {name: frame[name].array for name in columns[1:]}
    return pd.DataFrame({columns[0]: code} | others).duplicated().to_numpy()


def in_one_piece(column: "pd.Series[str]") -> "pd.Series[str]":
    """Join a column that was read in pieces: rows are then taken from it a hundred times faster."""
    if not isinstance(column.dtype, pd.StringDtype):  # Python objects, as of pandas before 3
        return column
    texts = pa.array(column.array)
    if not isinstance(texts, pa.ChunkedArray) or texts.num_chunks < 2:
        return column
    return pd.Series(pd.array(texts.combine_chunks(), dtype=column.dtype), name=column.name)


def give_back() -> None:
    """Give what Arrow and the C library hold in reserve, as much as a table took to read, back."""
    pa.default_memory_pool().release_unused()
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Find glibc's function; macOS, Windows and musl have none."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _arrow_texts(column: "pd.Series[str]") -> pa.LargeStringArray | None:
    if not isinstance(column.dtype, pd.StringDtype):
        return None
    texts = pa.array(column.array, type=pa.large_string())
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
    return None if texts.null_count else texts


def _hash(texts: pa.LargeStringArray) -> Bits | None:
    if not len(texts):
        return np.zeros(0, dtype=np.uint64)
    _, places, data = texts.buffers()
    place = np.frombuffer(places, dtype=np.int64)[texts.offset :][: len(texts) + 1]
    longest = int(np.diff(place).max())
    if longest > _LONGEST:
        return None
    text = np.frombuffer(b"" if data is None else data, dtype=np.uint8)
    words = longest // 8 + 1
    rows = max(1, _BLOCK_BYTES // (8 * words))
    bits = np.empty(len(texts), dtype=np.uint64)
    for start in range(0, len(texts), rows):
        own = place[start : start + rows + 1]
        bits[start : start + rows] = _hash_block(text[own[0] : own[-1]], np.diff(own), words)
    return bits


def _hash_block(text: npt.NDArray[np.uint8], size: npt.NDArray[np.int64], words: int) -> Bits:
    padded = np.zeros((len(size), 8 * words), dtype=np.uint8)
    padded[np.arange(8 * words) < size[:, None]] = text
    multiply, add = (np.uint64(prime) for prime in _PRIMES)
    bits = size.astype(np.uint64)
    for word in np.ascontiguousarray(padded.view(np.uint64).T):
        bits = (bits ^ word) * multiply  # of arrays: overflow wraps round
        bits ^= bits >> np.uint64(29)
        bits += add
    return bits
