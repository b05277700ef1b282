"""The command `evaluate`: score tables in, metrics and figures out."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from dfl.errors import ScoreError
from dfl.evaluation import known_rows, metric_table, read_scores
from dfl.files import writing
from dfl.report.figures.plots import confusion_figure, roc_figure
from dfl.report.figures.terminal import print_comparison, print_metrics

logger = logging.getLogger(__name__)

_TABLE: Final = "scores.csv"


def evaluate(
    scores: list[Path] | Path,
    out: Path | None = None,
    *,
    split: str | None = None,
    threshold: float | None = None,
) -> pd.DataFrame:
    """Turn score tables into metrics per dataset and per generator.

    A score table is what test and heads write as scores.csv. Printed are accuracy, average
    precision, AUROC and equal error rate for each dataset, for each generator against the real
    images of its datasets, for all images, and their mean and worst over datasets; several tables
    are compared as well. An image that serves several datasets counts once among all images.

    Example: dfl evaluate --scores runs/heads --out runs/heads/report

    Args:
        scores: A score table (.csv or .parquet), or a folder, which stands for every scores.csv in
            it; or a list of them: --scores '[first.csv, second.csv]'. Each is called by its file's
            name, or by its folder's where the file is scores.csv.
        out: Folder for metrics.csv (all printed numbers, unrounded) and, for each score table, its
            ROC curves and its confusion matrix as PNG. Nothing is written by default.
        split: Split to evaluate: train, val or test, or all. By default test, where a table has
            such rows; a table of one split is taken as it is.
        threshold: A score above it counts as fake; 0 by default, where every head puts its own. Of
            scores that are probabilities it has to be given.

    Returns:
        The rows of ``dfl.evaluation.metric_table`` for each score table, with the columns
        ``scores``, the table's name, and ``split`` before them.

    Raises:
        ScoreError: If a table is missing or breaks its rules, or it is not clear which split or
            threshold is meant; nothing is written then.
    """
    given = [scores] if isinstance(scores, Path) else scores
    files = [file for path in given for file in _tables_in(path)]
    if not files:
        raise ScoreError("no score table to evaluate; name at least one with --scores")
    rows = {name: _chosen(read_scores(file), split, file) for name, file in _named(files).items()}
    if threshold is None:
        _check_threshold(rows)
        threshold = 0.0
    tables = {name: metric_table(part, threshold=threshold) for name, part in rows.items()}
    for name, table in tables.items():
        print_metrics(table, title=_title(name, rows[name]))
        print()
    if len(tables) > 1:
        print_comparison(tables)
    tidy = _tidy(tables, rows)
    if out is not None:
        _write(out, tidy, rows, threshold)
    return tidy


def _check_threshold(rows: Mapping[str, pd.DataFrame]) -> None:
    """Refuse probabilities, which are all above 0; other scores that are so may be meant."""
    for name, part in rows.items():
        score = part["score"]
        if part["label"].nunique() < 2 or score.min() < 0 or score.max() <= 0:
            continue
        if score.max() <= 1:
            raise ScoreError(
                f"{name}: its scores all lie in [0, 1], as probabilities do, so above 0 all would "
                "be fake; give --threshold 0.5, or 0 if they are none"
            )
        logger.warning(
            "%s: no score is below 0, so all images count as fake; --threshold sets another limit",
            name,
        )


def _tables_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # folders that begin with a dot are of heads that are half made, or were replaced
    files = [
        file
        for file in sorted(path.rglob(_TABLE))
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not files:
        raise ScoreError(f"{path}: no {_TABLE} in this folder; name a score table or its folder")
    return files


def _named(files: Sequence[Path]) -> dict[str, Path]:
    """Name each file by as few of its last parts as tell all of them apart."""
    unique = list(dict.fromkeys(file.resolve() for file in files))
    parts = [_parts(file) for file in unique]
    names = [each[-1] for each in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        if len(set(names)) == len(names):
            break
        names = ["/".join(each[-depth:]) for each in parts]
    if len(set(names)) < len(names):  # they differ in their endings only
        names = [file.as_posix() for file in unique]
    return dict(zip(names, unique, strict=True))


def _parts(file: Path) -> tuple[str, ...]:
    return file.parent.parts if file.name == _TABLE else (*file.parent.parts, file.stem)


def _chosen(scores: pd.DataFrame, split: str | None, file: Path) -> pd.DataFrame:
    """Keep the rows of the split that is asked for; training images must not pass unnoticed."""
    there = list(scores["split"].unique())
    found = ", ".join(repr(name) for name in there) or "no rows"
    if split == "all" or (split is None and len(there) <= 1):
        return scores
    wanted = "test" if split is None else split
    if wanted not in there:
        raise ScoreError(f"{file}: no rows of the split {wanted!r}, only {found}; choose --split")
    return scores[scores["split"] == wanted].reset_index(drop=True)


def _title(name: str, rows: pd.DataFrame) -> str:
    splits = [split for split in rows["split"].unique() if split]
    return f"{name} ({' + '.join(splits)})" if splits else name


def _tidy(tables: Mapping[str, pd.DataFrame], rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    parts = []
    for name, table in tables.items():
        splits = "+".join(rows[name]["split"].unique())
        named = pd.DataFrame({"scores": name, "split": splits}, index=table.index)
        parts.append(pd.concat([named, table], axis=1))
    return pd.concat(parts, ignore_index=True)


def _write(
    out: Path, tidy: pd.DataFrame, rows: Mapping[str, pd.DataFrame], threshold: float
) -> None:
    with writing(out / "metrics.csv") as beside:
        tidy.to_csv(beside, index=False, lineterminator="\n")
    files = _file_names(rows)
    for name, part in rows.items():
        if known_rows(part).empty:
            continue
        file = files[name]
        figures = {
            "roc": roc_figure(part, title=name),
            "confusion": confusion_figure(part, threshold=threshold, title=name),
        }
        for kind, figure in figures.items():
            with writing(out / f"{file}-{kind}.png") as beside:
                figure.savefig(beside)


def _file_names(names: Iterable[str]) -> dict[str, str]:
    """Name the figures of each table; x/a and x-a, which are two tables, get two names."""
    found: dict[str, str] = {}
    for name in names:
        plain = file = name.replace("/", "-")
        number = 1
        while file in found.values():
            number += 1
            file = f"{plain}-{number}"
        found[name] = file
    return found
