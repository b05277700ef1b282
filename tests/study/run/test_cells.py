"""Cells on disk, whole and damaged."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dfl.errors import HeadError
from dfl.study.run import missing
from dfl.study.run.cells import CellStore
from dfl.study.run.fitting import Outcome, fit_cells
from dfl.study.run.missing import run_missing
from tests.study.study_examples import cell, example, opened

SCORES = {"none": np.array([0.5, -1.0, 2.0]), "blur": np.array([1.0, 0.0, -3.5])}
KEY = "0" * 32


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda file: (file.write_bytes(change(file.read_bytes())), None)[1]


def flip_a_score(content: bytes) -> bytes:
    at = content.index(SCORES["none"].tobytes())
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def no_info(file: Path) -> None:
    np.savez(file, **{f"condition:{condition}": score for condition, score in SCORES.items()})


DAMAGES = {
    "truncated": with_bytes(lambda content: content[: len(content) // 2]),
    "empty": with_bytes(lambda content: b""),
    "no zip": with_bytes(lambda content: b"scores " * 99),
    "one bit": with_bytes(flip_a_score),
    "no info": no_info,
}


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    kept = CellStore(tmp_path / "cells")
    kept.keep(KEY, cell(), SCORES, {"seconds": 0.5})
    return kept


def test_keep__reads_back_the_same(store: CellStore) -> None:
    scores, info = store.read(KEY)
    assert list(scores) == list(SCORES)
    for condition, score in SCORES.items():
        np.testing.assert_array_equal(scores[condition], score)
    assert info["seconds"] == 0.5
    assert store.info(KEY) == info
    assert store.finished() == store.usable([KEY, "1" * 32]) == {KEY}
    assert store.readable(KEY)
    assert not store.readable("1" * 32)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_keep__refuses_scores_that_are_not_finite(store: CellStore, odd: float) -> None:
    scores = SCORES | {"blur": np.array([1.0, odd, odd])}
    message = (
        r"^2 of 3 scores under the condition blur are not finite; the training diverged, so lower"
    )
    with pytest.raises(HeadError, match=message):
        store.keep("1" * 32, cell(), scores, {})
    assert store.finished() == {KEY}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_usable__a_damaged_file_is_not_there(
    store: CellStore, damage: Callable[[Path], None], caplog
) -> None:
    file = store.folder / f"{KEY}.npz"
    damage(file)
    assert store.finished() == {KEY}
    assert not store.readable(KEY)
    assert store.usable([KEY]) == set()
    assert not caplog.records
    assert store.usable([KEY], warn=True) == set()
    assert [record.getMessage() for record in caplog.records] == [
        f"{file} cannot be read; it is made again"
    ]


def test_run_missing__makes_a_damaged_cell_again(tmp_path: Path, monkeypatch, caplog) -> None:
    study = example(tmp_path, conditions=["none"])
    conditions = opened(study)

    def here(cells, study, *, jobs, done: Callable[[Outcome], None]) -> None:
        for one in cells:
            for outcome in fit_cells([one], study, conditions):
                done(outcome)

    monkeypatch.setattr(missing, "run_cells", here)
    cells = [cell("lda"), cell("bayes")]
    first = run_missing(cells, study, conditions, jobs=1)
    store = CellStore(study.folder)
    file = study.folder / f"{first.keys[cells[0]]}.npz"
    expected = store.read(file.stem)[0]["none"]
    file.write_bytes(file.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        again = run_missing(cells, study, conditions, jobs=1)
    assert (again.fitted, again.failures, again.keys) == (1, [], first.keys)
    assert caplog.text.count("it is made again") == 1
    np.testing.assert_array_equal(store.read(file.stem)[0]["none"], expected)
