"""Cells on disk, whole and damaged."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dfl.errors import HeadError
from dfl.heads.estimators import lda, random_forest
from dfl.heads.storage.head_folder import load_head, save_head, settings
from dfl.heads.storage.skops_file import load_pipeline
from dfl.study.design.training_sets import held_out_rows
from dfl.study.export import take_home
from dfl.study.run import missing
from dfl.study.run.cells import CellStore, Outcome
from dfl.study.run.fitting import fit_cells, fit_head
from dfl.study.run.missing import run_missing
from dfl.study.run.workers import LocalWorkers
from tests.study.study_examples import Dies, cell, example, pipeline

SCORES = {"none": np.array([0.5, -1.0, 2.0]), "blur": np.array([1.0, 0.0, -3.5])}
KEY = "0" * 32


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda file: (file.write_bytes(change(file.read_bytes())), None)[1]


def flip_a_score(content: bytes) -> bytes:
    at = content.index(SCORES["none"].tobytes())
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def other_scores(file: Path) -> None:
    np.savez(file, **{f"condition:{condition}": score + 1 for condition, score in SCORES.items()})


DAMAGES = {
    "truncated": with_bytes(lambda content: content[: len(content) // 2]),
    "empty": with_bytes(lambda content: b""),
    "no zip": with_bytes(lambda content: b"scores " * 99),
    "one bit": with_bytes(flip_a_score),
    "other scores": other_scores,
    "missing": lambda file: file.unlink(),
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
    file = store.folder / KEY / "scores.npz"
    damage(file)
    assert store.finished() == {KEY}
    assert store.usable([KEY]) == set()
    assert not caplog.records
    assert store.usable([KEY], warn=True) == set()
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}: damaged; it is made anew"
    ]


def test_run_missing__makes_a_damaged_cell_again(tmp_path: Path, monkeypatch, caplog) -> None:
    study = example(tmp_path, conditions=["none"])

    def here(cells, study, workers, *, done: Callable[[Outcome], None]) -> None:
        for one in cells:
            for outcome in fit_cells(study, [one]):
                done(outcome)

    monkeypatch.setattr(missing, "run_cells", here)
    cells = [cell("lda"), cell("bayes")]
    first = run_missing(cells, study, LocalWorkers(1))
    store = CellStore(study.folder)
    key = first.keys[cells[0]]
    file = study.folder / key / "scores.npz"
    expected = store.read(key)[0]["none"]
    file.write_bytes(file.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        again = run_missing(cells, study, LocalWorkers(1))
    assert (again.fitted, again.failures, again.keys) == (1, [], first.keys)
    assert caplog.text.count("it is made anew") == 1
    np.testing.assert_array_equal(store.read(key)[0]["none"], expected)


def test_keep__the_head_as_it_is_taken_home(tmp_path: Path) -> None:
    study = example(tmp_path, heads={"lda": [lda()], "forest": [random_forest(n_estimators=99)]})
    store = CellStore(study.folder)
    cells = [cell("lda"), cell("forest")]
    assert [outcome.cause for outcome in fit_cells(study, cells)] == [None, None]
    light, heavy = (study.key(one) for one in cells)
    assert store.head(heavy) is None
    assert store.usable([light, heavy]) == {light, heavy}
    assert store.head(light) == study.folder / light
    save_head(fit_head(cells[0], study)[0], tmp_path / "head", counts={"real": 24, "fake": 36})
    for name in ("head.json", "head.skops"):
        kept, again = (folder / name for folder in (study.folder / light, tmp_path / "head"))
        assert _content(kept) == _content(again)
    rows = held_out_rows(study.frames[0])
    again = load_head(study.folder / light).score(study.features["none"].matrix(("one.a",), rows))
    np.testing.assert_allclose(again, store.read(light)[0]["none"], rtol=1e-6)


def _content(file: Path) -> object:
    """What a file says, without its checksums: members of an archive are named by addresses."""
    if file.suffix == ".json":
        said = json.loads(file.read_text())
        return {key: value for key, value in said.items() if not key.startswith("checksum")}
    return settings(load_pipeline(file))


def test_head__a_damaged_one_is_named_and_the_scores_stay(tmp_path: Path, caplog) -> None:
    study = example(tmp_path)
    store = CellStore(study.folder)
    assert [outcome.cause for outcome in fit_cells(study, [cell()])] == [None]
    (key,) = store.finished()
    file = study.folder / key / "head.skops"
    file.write_bytes(file.read_bytes()[:-1])
    assert store.usable([key], warn=True) == {key}
    assert store.head(key) is None
    assert caplog.messages == [f"{file}: damaged; the head is fitted anew"]
    with pytest.raises(HeadError, match=r"head\.skops: damaged"):
        load_head(study.folder / key)
    assert take_home(cell(), key, study, None, out=tmp_path).is_dir()
    assert load_head(tmp_path / "best").check_fitted() is None


def test_keep__an_estimator_that_cannot_be_stored_has_its_scores(tmp_path: Path) -> None:
    study = example(tmp_path, heads={"own": [pipeline(Dies())]})
    store = CellStore(study.folder)
    assert [outcome.cause for outcome in fit_cells(study, [cell("own")])] == [None]
    (key,) = store.finished()
    assert {path.name for path in (study.folder / key).iterdir()} == {"cell.json", "scores.npz"}
    assert store.usable([key]) == {key}
