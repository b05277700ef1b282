"""Unreadable images: found before training, left out by choice, and always listed."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

import pandas as pd

from dfl.data.images.decode import decode
from dfl.data.manifest.manifest import Manifest, write_table
from dfl.errors import DataError, ImageError
from dfl.threads import cores, in_threads

logger = logging.getLogger(__name__)

MOST_THREADS: Final = 16


def find_unreadable(manifest: Manifest) -> dict[str, str]:
    """Decode every image once.

    Returns:
        Why an image cannot be decoded, by the path in the manifest; empty if all can be.
    """
    paths = manifest.frame["path"].unique().tolist()
    logger.info("decoding %d images to find unreadable ones", len(paths))

    def reason(path: str) -> str:
        try:
            decode(manifest.resolve(path))
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


def drop_unreadable(manifest: Manifest, report: Path) -> Manifest:
    """Leave unreadable images out and write a table of them, ``path`` and ``reason``.

    Args:
        manifest: The images.
        report: A ``.csv`` file; one that is there is replaced, or removed if all can be read.

    Returns:
        The rows that can be read.

    Raises:
        DataError: If none can be.
    """
    unreadable = find_unreadable(manifest)
    if not unreadable:
        report.unlink(missing_ok=True)
        return manifest
    table = pd.DataFrame({"path": list(unreadable), "reason": list(unreadable.values())})
    write_table(table, report)
    logger.warning("left out %d unreadable images, listed in %s", len(unreadable), report)
    return without(manifest, set(unreadable))


def read_report(report: Path) -> set[str]:
    """Return the paths that a report lists; none if there is no report."""
    if not report.exists():
        return set()
    return set(pd.read_csv(report, dtype=str, keep_default_na=False)["path"])


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
