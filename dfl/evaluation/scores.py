"""The score table: one row an image in a dataset pair, written exactly and read strictly.

A score is a margin or a logit, higher = fake, and every head puts its own threshold at 0, so
``score > 0`` says fake.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfl.errors import MOST_NAMED, ScoreError, named, one_line
from dfl.files import write_csv, writing
from dfl.types import FAKE, REAL, UNKNOWN

SCORE_COLUMNS: Final = ("path", "dataset", "generator", "split", "label", "score")
_TEXT: Final = SCORE_COLUMNS[:4]
_LABELS: Final = (REAL, FAKE, UNKNOWN)
_ENDINGS: Final = (".csv", ".parquet")


def probability(score: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Turn scores into probabilities of being fake, by the logistic function.

    Args:
        score: Margins or logits of any shape, higher = fake.

    Returns:
        Values in [0, 1], float64, of the same shape; no overflow at any size of score.
    """
    margin = np.asarray(score, dtype=np.float64)
    tail = np.exp(-np.abs(margin))
    return np.where(margin >= 0, 1.0, tail) / (1.0 + tail)


def checked_scores(
    score: npt.ArrayLike, label: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Check scores and labels, each of shape ``(N,)``, and leave rows of unknown label out.

    Raises:
        ScoreError: If the shapes differ, a score is not finite, or a label is not 0, 1 or -1.
    """
    margin = np.asarray(score, dtype=np.float64)
    truth = np.asarray(label)
    if margin.ndim != 1 or margin.shape != truth.shape:
        raise ScoreError(
            f"scores of shape {margin.shape} and labels of shape {truth.shape}; "
            "give one score and one label an image"
        )
    if not np.isfinite(margin).all():
        wrong = margin[~np.isfinite(margin)][0]
        raise ScoreError(
            f"a score is {wrong}; scores must be finite, so check the head that made them"
        )
    odd = ~np.isin(truth, _LABELS)
    if odd.any():
        raise ScoreError(
            f"a label is {truth[odd][0]}; use 0 for real, 1 for fake or -1 for unknown"
        )
    known = truth != UNKNOWN
    return margin[known], truth[known].astype(np.int64)


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read and check a score table.

    Args:
        path: A ``.csv`` or ``.parquet`` file with at least ``SCORE_COLUMNS``; further columns are
            kept.

    Returns:
        The table in file order: text columns as they were written ("NA" and "007" stay text),
        ``label`` int64, ``score`` float64.

    Raises:
        ScoreError: If the file is missing or unreadable, or a column, a score or a label breaks the
            rules.
    """
    path = Path(path)
    _check_ending(path)
    if not path.is_file():
        raise ScoreError(
            f"{path}: no such score table; name the scores.csv that test or heads wrote"
        )
    try:
        frame = _read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as err:  # pandas' and pyarrow's parser errors are both of these
        reason = one_line(err, 200)
        raise ScoreError(f"{path}: not a readable score table ({reason}); write it again") from err
    return validate_scores(frame, str(path))


def write_scores(frame: pd.DataFrame, path: str | Path) -> None:
    """Check a score table and write it so that it reads back bit for bit.

    The table is written beside its place and then renamed, so an interrupted run leaves the old
    file or the new one.

    Args:
        frame: The table; columns beyond ``SCORE_COLUMNS`` are written after them.
        path: A ``.csv`` or ``.parquet`` file; missing folders are made.

    Raises:
        ScoreError: If the table breaks the rules of ``validate_scores``; nothing is written then.
    """
    path = Path(path)
    _check_ending(path)
    checked = validate_scores(frame, str(path))
    extra = [name for name in checked.columns if name not in SCORE_COLUMNS]
    checked = checked[[*SCORE_COLUMNS, *extra]]
    with writing(path) as beside:
        if path.suffix.lower() == ".csv":
            write_csv(checked, beside)  # float64 as its shortest repr
        else:
            checked.to_parquet(beside, index=False)


def validate_scores(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Check a score table and give its columns their types.

    Args:
        frame: The table to check; it is not changed.
        source: What to call the table in an error, usually its file.

    Returns:
        A copy with a fresh index, ``label`` int64 and ``score`` float64.

    Raises:
        ScoreError: If a column is missing, a text is missing or no text, a label is not 0, 1 or
            -1, or a score is not finite; names the first ten rows of each fault, counted as a
            spreadsheet shows them, the header being row 1.
    """
    missing = [name for name in SCORE_COLUMNS if name not in frame.columns]
    if missing:
        needed = ", ".join(SCORE_COLUMNS)
        raise ScoreError(f"{source}: no column {', '.join(missing)}; a score table has {needed}")
    checked = frame.reset_index(drop=True)
    label, score = _numbers(checked["label"]), _numbers(checked["score"])
    faults = [
        *(_fault(checked[name], _is_no_text(checked[name]), "must be text") for name in _TEXT),
        _fault(checked["label"], ~np.isin(label, _LABELS), "must be 0 (real), 1 (fake) or -1"),
        _fault(
            checked["path"],
            checked.duplicated(["path", "dataset"]).to_numpy(),
            "must occur once in a dataset",
        ),
        _fault(checked["score"], ~np.isfinite(score), "must be a finite number"),
    ]
    if found := [each for each in faults if each]:
        raise ScoreError(f"{source}: {'; '.join(found)}; correct the table or make it again")
    return checked.assign(label=label.astype(np.int64), score=score)


def _read_csv(path: Path) -> pd.DataFrame:
    # Labels and scores are read as text too: a wrong one can then be quoted, and float() rounds
    # correctly.
    return pd.read_csv(path, dtype=dict.fromkeys(SCORE_COLUMNS, "str"), na_filter=False)


def _check_ending(path: Path) -> None:
    if path.suffix.lower() not in _ENDINGS:
        raise ScoreError(f"{path}: a score table ends in {' or '.join(_ENDINGS)}; rename it")


def _is_no_text(column: pd.Series) -> npt.NDArray[np.bool_]:
    if isinstance(column.dtype, pd.StringDtype):
        return column.isna().to_numpy()
    return np.fromiter((not isinstance(value, str) for value in column), dtype=bool)


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """Turn a column into float64, with nan where it holds no number."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return column.to_numpy(dtype=np.float64)
    try:
        return column.to_numpy(dtype=object, na_value=np.nan).astype(np.float64)
    except (TypeError, ValueError):
        return np.array([_number(value) for value in column], dtype=np.float64)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # anything else than a number ends below
    except (TypeError, ValueError):
        return float("nan")


def _fault(column: pd.Series, wrong: npt.NDArray[np.bool_], rule: str) -> str:
    """Say which rows break a rule and what they hold; empty if none does."""
    rows = np.flatnonzero(wrong)
    if not rows.size:
        return ""
    shown = column.iloc[rows[:MOST_NAMED]].tolist()
    where = named([str(row + 2) for row in rows[:MOST_NAMED].tolist()], rows.size)
    got = ", ".join(dict.fromkeys(map(repr, shown)))
    return f"row{'s' if rows.size > 1 else ''} {where}: {column.name} {rule}, got {got}"
