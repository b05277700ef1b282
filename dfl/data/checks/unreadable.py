"""Unreadable and damaged images: all of them named at once, left out by choice, always listed."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pandas as pd

from dfl.data.images.decode import OnDamaged, decode, decode_noting, read_image
from dfl.data.manifest.manifest import Manifest, write_table
from dfl.data.sources.words import SIDE_NAMES
from dfl.errors import DataError, ImageError, named
from dfl.processes import cores
from dfl.threads import in_threads

logger = logging.getLogger(__name__)

MOST_THREADS: Final = 16
_CAUSES: Final = 4
MAX_UNREADABLE: Final = 0.05
"""The share of a class that may be left out before what is left is no fair sample of it."""


def can_read(file: Path) -> bool:
    """Whether an image can be decoded."""
    try:
        decode(file)
    except ImageError:
        return False
    return True


def find_unreadable(manifest: Manifest, on_damaged: OnDamaged = "warn") -> dict[str, str]:
    """Decode every image once.

    Args:
        manifest: The images.
        on_damaged: Whether a damaged image counts as unreadable (``refuse``).

    Returns:
        Why an image cannot be decoded, by the path in the manifest; empty if all can be.
    """
    paths = manifest.frame["path"].unique().tolist()
    logger.info("decoding %d images to find unreadable ones", len(paths))

    def reason(path: str) -> str:
        file = manifest.resolve(path)
        try:
            decode_noting(read_image(file), str(file), on_damaged)
        except ImageError as err:
            return str(err)
        return ""

    # Pillow lets go of the interpreter while it decodes, so threads use all cores; but tables and
    # streams hold few rows, which many threads would drive out before they are asked for.
    threads = min(MOST_THREADS, cores())
    reasons = in_threads(
        reason, paths, threads=threads, what="look for unreadable images", total=len(paths)
    )
    return {path: why for path, why in zip(paths, reasons, strict=True) if why}


def drop_unreadable(
    manifest: Manifest,
    report: Path,
    *,
    max_unreadable: float = MAX_UNREADABLE,
    on_damaged: OnDamaged = "warn",
) -> Manifest:
    """Leave unreadable images out and write a table of them, ``path`` and ``reason``.

    Args:
        manifest: The images.
        report: A ``.csv`` file; one that is there is replaced, or removed if all can be read.
        max_unreadable: The share of a class, and of a class of a dataset, that may be left out; one
            image may in any case, where others are left.
        on_damaged: Whether a damaged image counts as unreadable (``refuse``).

    Returns:
        The rows that can be read.

    Raises:
        DataError: If a class loses more, or none can be read.
    """
    unreadable = find_unreadable(manifest, on_damaged)
    if not unreadable:
        report.unlink(missing_ok=True)
        return manifest
    write_reasons(unreadable, report)
    kept = without(manifest, set(unreadable))
    _check_lost(manifest, unreadable, report, max_unreadable)
    logger.warning("left out %d unreadable images, listed in %s", len(unreadable), report)
    return kept


def say_unreadable(manifest: Manifest, report: Path, on_damaged: OnDamaged = "warn") -> str | None:
    """Find all unreadable images where one was met, and write a table of them.

    Args:
        manifest: The images.
        report: A ``.csv`` file; one that is there is replaced.
        on_damaged: Whether a damaged image counts as unreadable (``refuse``).

    Returns:
        One line that names them; None if there is one at most, which has been named.
    """
    unreadable = find_unreadable(manifest, on_damaged)
    if len(unreadable) < 2:
        return None
    write_reasons(unreadable, report)
    total = manifest.frame["path"].nunique()
    return (
        f"{len(unreadable)} of {total} images cannot be read: {named([*unreadable])} "
        f"{_causes(manifest, unreadable)}; all are listed in {report}, and on_unreadable: skip "
        "leaves them out"
    )


def _causes(manifest: Manifest, unreadable: Mapping[str, str]) -> str:
    """Say how often which reason was given, what is special of each image aside."""
    causes = Counter(
        re.sub(r" \(.*\)", "", reason.removeprefix(f"{manifest.resolve(path)}: "))
        for path, reason in unreadable.items()
    )
    return " ".join(f"({times} times: {cause})" for cause, times in causes.most_common(_CAUSES))


def _check_lost(
    manifest: Manifest, unreadable: Mapping[str, str], report: Path, max_unreadable: float
) -> None:
    """Refuse to leave out much of a class: who drops a format, drops what has that format."""
    for by in (["dataset", "label"], ["label"]):
        frame = manifest.frame.drop_duplicates([*by, "path"])
        lost = frame["path"].isin(unreadable)
        for key, rows in lost.groupby([frame[name] for name in by]):
            label, dataset = key[-1], f" of {key[0]}" if len(by) > 1 else ""
            count, total = int(rows.sum()), len(rows)
            if label not in SIDE_NAMES or count <= max_unreadable * total:
                continue
            if count > 1 or total == 1:
                raise DataError(
                    f"{manifest.root}: {count} of the {total} {SIDE_NAMES[label]} images{dataset} "
                    f"cannot be read, more than {max_unreadable:.0%} (max_unreadable), so that "
                    f"what is left would be chosen by how it was stored "
                    f"{_causes(manifest, unreadable)}; restore them, they are listed in {report}"
                )


def write_reasons(reasons: Mapping[str, str], report: Path) -> None:
    """Write a table of images and what is wrong with them, ``path`` and ``reason``."""
    table = pd.DataFrame({"path": list(reasons), "reason": list(reasons.values())})
    write_table(table, report)


def read_reasons(report: Path) -> dict[str, str]:
    """Read a table of `write_reasons`; empty if there is none."""
    table = _read(report)
    return {} if table is None else dict(zip(table["path"], table["reason"], strict=True))


def read_report(report: Path) -> set[str]:
    """Return the paths that a report lists; none if there is no report."""
    table = _read(report)
    return set() if table is None else set(table["path"])


def _read(report: Path) -> pd.DataFrame | None:
    return pd.read_csv(report, dtype=str, keep_default_na=False) if report.exists() else None


def without(manifest: Manifest, paths: set[str]) -> Manifest:
    """Return a manifest without some paths.

    Raises:
        DataError: If no row is left.
    """
    kept = manifest.frame[~manifest.frame["path"].isin(paths)]
    if kept.empty:
        raise DataError(
            f"{manifest.root}: none of its {len(paths)} images can be read; restore them"
        )
    return replace(manifest, frame=kept.reset_index(drop=True))


class DamagedImages:
    """Images that are read in spite of damage, noted as they come, and the table of them.

    A run that goes on where another one stopped adds to the table of that one. An image that turns
    out to be sound by now leaves it.

    Attributes:
        found: What the decoder got over, by the path in the manifest, in this process.
    """

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._sound: set[str] = set()
        self._before: dict[str, str] | None = None
        self._said: dict[str, str] | None = None

    def note(self, paths: Sequence[str], damage: Sequence[str], report: Path) -> None:
        """Note a batch.

        Args:
            paths: Its images, as the manifest has them.
            damage: What was found of each; empty for a sound one.
            report: The table, a ``.csv`` file.
        """
        if self._before is None:
            self._before = read_reasons(report)
        for path, why in zip(paths, damage, strict=True):
            if why:
                self.found[path] = why
            elif path in self._before:
                self._sound.add(path)

    def write(self, report: Path, everywhere: Iterable["DamagedImages"]) -> None:
        """Write the table and say in one line how many there are, once.

        Args:
            report: A ``.csv`` file; removed where none is left.
            everywhere: What each process noted.
        """
        sound = set().union(*(each._sound for each in everywhere))
        before = self._before or {}
        table = {path: why for path, why in before.items() if path not in sound}
        for each in everywhere:
            table |= each.found
        if table == self._said:
            return
        self._said = table
        if not table:
            report.unlink(missing_ok=True)
            return
        write_reasons(table, report)
        logger.warning(
            "damaged images that were read all the same: %d, listed in %s; on_damaged: refuse "
            "makes each an error",
            len(table),
            report,
        )
