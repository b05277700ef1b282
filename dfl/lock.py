"""A lock between processes that goes with the process that holds it, however that ends."""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # there nothing is locked, which callers say

__all__ = ["flock", "locked"]

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.2
_open: Final[set[int]] = set()
"""Descriptors of locks, of this process alone."""
_UNSUPPORTED: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(
    folder: Path, *, note: str = "", on_wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Keep other processes from making the same folder; wait for as long as another one does.

    The lock is ``flock`` on a file beside the folder: the kernel lets go when the process ends,
    SIGKILL included. On NFS it also works between machines, where the server's lock service runs.
    On a file system without locks a warning is logged, and nothing is locked.

    Args:
        folder: The folder that is to be made; it need not be there.
        note: What others that wait can read: what the holder is about.
        on_wait: Called with the holder's note again and again while another process holds the lock;
            it may raise, to give up.
    """
    path = folder.with_name(f".{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, folder, on_wait)
    try:
        with suppress(OSError):  # the note is a courtesy, and the disk may be full
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note.encode(), 0)
        yield
    finally:
        if descriptor in _open:  # not in a forked process, whose lock it never was
            with suppress(OSError):
                path.unlink()  # while it is locked: who waited for this one looks for a new one
            _close(descriptor)


def flock(descriptor: int, *, wait: bool = False) -> None:
    """Lock an open file for this process; the kernel unlocks it when it is closed.

    Args:
        descriptor: The file.
        wait: Whether to wait for whoever holds it.

    Raises:
        BlockingIOError: If another process holds it, without `wait`.
        OSError: If the system or the file system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _acquire(path: Path, folder: Path, on_wait: Callable[[str], None] | None) -> int:
    waited = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        _open.add(descriptor)
        try:
            free = _try(descriptor, folder)
            if free and _is_current(descriptor, path):
                return descriptor
            note = os.pread(descriptor, 4096, 0).decode(errors="replace")
        except BaseException:
            _close(descriptor)
            raise
        _close(descriptor)
        if free:
            continue  # its holder has just removed it
        if on_wait is not None:
            on_wait(note)
        if not waited:
            logger.info("%s: another process is making it; waiting for that", folder)
            waited = True
        time.sleep(_POLL_S)


def _close(descriptor: int) -> None:
    _open.discard(descriptor)  # first: its number may be taken for another file at once
    os.close(descriptor)


def _let_go() -> None:
    """Close the locks in a forked process: one that outlives its killed parent would keep them.

    The parent's locks stay: closing a copy of a descriptor unlocks nothing.
    """
    for descriptor in tuple(_open):
        with suppress(OSError):
            _close(descriptor)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_let_go)


def _try(descriptor: int, folder: Path) -> bool:
    """Lock if nobody else has; where that cannot be done, say so and go on."""
    try:
        flock(descriptor)
    except BlockingIOError:
        return False
    except OSError as err:
        if err.errno not in _UNSUPPORTED:
            raise
        logger.warning(
            "%s: this file system has no locks (%s); do not make it twice at once", folder, err
        )
    return True


def _is_current(descriptor: int, path: Path) -> bool:
    """Say whether the open file still has its name; its last holder may have removed it."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
