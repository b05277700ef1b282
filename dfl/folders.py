"""Folders that are made as a whole: by one process at a time, beside their place, then renamed."""

import errno
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from filelock import FileLock, Timeout

from dfl.files import OWN_TOKEN, own_token, rename, sync

logger = logging.getLogger(__name__)

_RANDOM: Final = "[a-z0-9_]{8}"  # as mkdtemp names folders
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(
    folder: Path,
    *,
    note: str = "",
    on_wait: Callable[[str], None] | None = None,
    poll_s: float = 0.2,
) -> Iterator[None]:
    """Keep other processes from making the same folder; wait for as long as another one does.

    The lock is on a file beside the folder: the kernel lets go when the process ends, SIGKILL
    included. On NFS it also works between machines, where the server's lock service runs. On a
    file system without locks a warning is logged, and nothing is locked.

    Args:
        folder: The folder that is to be made; it need not be there.
        note: What others that wait can read: what the holder is about.
        on_wait: Called with the holder's note again and again while another process holds the lock;
            it may raise, to give up.
        poll_s: Seconds between two looks.
    """
    path = folder.with_name(f".{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    # it may be taken in one thread and given back in another
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    waited = False
    while not take(lock, folder):
        if on_wait is not None:
            on_wait(_note_in(path))
        if not waited:
            logger.info("%s: another process is making it; waiting for that", folder)
            waited = True
        time.sleep(poll_s)
    is_held = lock.is_locked
    try:
        if is_held:
            with suppress(OSError):  # the note is a courtesy, and the disk may be full
                path.write_text(note, encoding="utf-8")
        yield
    finally:
        if lock.is_locked or not is_held:  # not in a forked process, whose lock it never was
            with suppress(OSError):
                path.unlink()  # while it is locked: who waited for this one looks for a new one
            lock.release()


def take(lock: FileLock, folder: Path) -> bool:
    """Take a lock if nobody else has it; where nothing can be locked, say so and go on.

    Args:
        lock: The lock, which does not fall back to files that outlive their process.
        folder: What it is for, for the log.

    Returns:
        Whether nobody else has it.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as err:
        if err.errno == errno.ESTALE:  # its holder, on another machine, has just removed it
            return False
        if err.errno not in _NO_LOCKS:
            raise
        logger.warning(
            "%s: this file system has no locks (%s); do not make it twice at once", folder, err
        )
    return True


@contextmanager
def making_folder(
    folder: Path, *, workspace: Path | None = None, synced: bool = True
) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends it takes the place of `folder`.

    What a killed process left is put right first. If the block raises, `folder` stays as it is.

    Args:
        folder: The folder to make; its parents are made too. A link stays, and leads to it.
        workspace: Where the unfinished folder is kept, on the same file system, by a caller that
            has locked `folder`; by default it is locked here, and kept beside it.
        synced: Whether to wait for the disk; what has checksums and can be made again need not.

    Yields:
        The folder to fill.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if workspace is None:
            stack.enter_context(locked(folder))
        beside = workspace or folder.parent
        recover_folder(beside / folder.name)
        partial = Path(mkdtemp(prefix=f".{folder.name}.new.", dir=beside))
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        partial.chmod(0o755)  # mkdtemp makes it private
        yield partial
        replace_folder(partial, folder, synced=synced)


def replace_folder(new: Path, folder: Path, *, synced: bool = True) -> None:
    """Put a finished folder in the place of another by two renames; a failure undoes the first.

    A process that is killed between the two leaves the old one as ``.<name>.old.<...>``;
    `recover_folder` puts it back.

    Args:
        new: The finished folder, on the same file system.
        folder: Where it goes.
        synced: As for `making_folder`.
    """
    old = folder.with_name(f".{folder.name}.old.{own_token()}")
    if synced:
        sync(new)
    if folder.exists():
        rename(folder, old)
    try:
        rename(new, folder)
    except OSError:
        if old.exists():
            rename(old, folder)
        raise
    if synced:
        sync(folder.parent, deep=False)
    if old.exists():
        _remove(old, folder)


def recover_folder(folder: Path) -> None:
    """Undo what a process that was killed while it made a folder has left; nobody else may make it.

    Args:
        folder: The folder that was to be made or replaced.
    """
    # exactly so: ".f.old." also begins the names that belong to a folder called "f.old"
    own = re.compile(rf"\.{re.escape(folder.name)}\.(?:(old|gone)\.{OWN_TOKEN}|new\.{_RANDOM})")
    there = folder.parent.iterdir() if folder.parent.is_dir() else ()
    for left, found in [(path, own.fullmatch(path.name)) for path in there]:
        if found is None:
            continue
        if found[1] != "old":
            shutil.rmtree(left, ignore_errors=True)
        elif folder.exists():
            _remove(left, folder)
        else:
            rename(left, folder)


def _remove(old: Path, folder: Path) -> None:
    """Remove what was replaced; half of it is never taken for the whole."""
    gone = folder.with_name(f".{folder.name}.gone.{own_token()}")
    rename(old, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _note_in(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # its holder has just removed it
        return ""
