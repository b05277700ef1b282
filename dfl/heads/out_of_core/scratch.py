"""Scratch folders that do not outlive the process that made them, however that ends."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dfl.lock import flock

__all__ = ["remove_leftovers", "scratch_folder"]

logger = logging.getLogger(__name__)

_PREFIX: Final = ".rows."
_LOCK: Final = ".lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for large files, which is removed at the end.

    A process that is killed removes nothing. So a file beside the folder is locked for as long as
    the folder is used; the kernel unlocks it when the process ends, and `remove_leftovers` of a
    later run knows by it that nobody needs the folder.

    Args:
        parent: Where to make it; made where it is missing.
    """
    parent.mkdir(parents=True, exist_ok=True)
    descriptor, lock = _new_lock(parent)
    folder = _folder_of(lock)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def remove_leftovers(parent: Path) -> None:
    """Remove the scratch folders of processes that were killed; those in use stay.

    Args:
        parent: As for `scratch_folder`; it need not be there.
    """
    found = list(parent.glob(f"{_PREFIX}*"))
    for lock in sorted({path if path.suffix == _LOCK else _lock_of(path) for path in found}):
        try:
            _remove(lock)
        except OSError as err:
            logger.warning(
                "%s: cannot tell whether a run still uses it (%s); remove it if none does",
                _folder_of(lock),
                err.strerror or err,
            )


def _remove(lock: Path) -> None:
    # the lock file of a folder in use is there; one that is made here is nobody else's
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        flock(descriptor)
        folder = _folder_of(lock)
        if folder.is_dir():
            logger.info("%s: removed; the run that made it was killed", folder)
            shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
    except BlockingIOError:
        pass  # in use
    finally:
        os.close(descriptor)


def _new_lock(parent: Path) -> tuple[int, Path]:
    while True:
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_LOCK, dir=parent)
        # without locks the folder is as good; only a leftover of it cannot be told from one in use
        with suppress(OSError):
            flock(descriptor, wait=True)
        if (lock := Path(name)).exists():
            return descriptor, lock
        os.close(descriptor)  # another run took it for a leftover before it was locked


def _folder_of(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(_LOCK))


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)
