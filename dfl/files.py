"""Writing without ever leaving half a file: write beside, bring to the disk, then rename."""

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Final

__all__ = [
    "drop_leftovers",
    "is_full_disk",
    "recover_folder",
    "replace_folder",
    "sha256_of",
    "sync",
    "writing",
]

_ABANDONED_S: Final = 600.0
_OWN_TOKEN: Final = "[0-9]+-[0-9a-f]{8}"  # what `_own_token` gives
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """Give a path to write to; on success it takes the place of `path`, on failure it is removed.

    What was written is on the disk before it gets its name, so a name never stands for less, even
    after a power cut.

    Args:
        path: The file or folder to make; its parents are made too. A file already there is replaced
            at once, a folder must not be there.
        synced: Whether to wait for the disk; what has a checksum and can be made again need not,
            and on a busy disk the wait is seconds.

    Yields:
        A path that does not exist yet, in the same folder, with the same ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{_own_token()}{path.suffix}")
    try:
        yield partial
        if synced:
            sync(partial)
        partial.replace(path)
        if synced:
            sync(path.parent, deep=False)
    except OSError as err:
        if err.filename is None and is_full_disk(err):
            err.filename = str(path)  # a failed write does not say where
        raise
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def drop_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote a file have left beside it.

    Args:
        path: The file that `writing` makes. What is younger than ten minutes may be under way.
    """
    for partial in path.parent.glob(f".{escape(path.stem)}.*-*{escape(path.suffix)}"):
        with suppress(OSError):  # another process may be faster
            if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                partial.unlink()


def replace_folder(new: Path, path: Path) -> None:
    """Put a finished folder in the place of another by two renames; a failure undoes the first.

    A process that is killed between the two leaves the old one as ``.<name>.old.<...>``;
    `recover_folder` puts it back.

    Args:
        new: The finished folder, on the same file system.
        path: Where it goes.
    """
    old = path.with_name(f".{path.name}.old.{_own_token()}")
    sync(new)
    if path.exists():
        path.replace(old)
    try:
        new.replace(path)
    except OSError:
        if old.exists():
            old.replace(path)
        raise
    sync(path.parent, deep=False)
    if old.exists():
        _remove(old, path)


def recover_folder(path: Path) -> None:
    """Undo what a killed `replace_folder` left; nobody else may be replacing `path` meanwhile.

    Args:
        path: The folder that was to be replaced.
    """
    for gone in _beside(path, "gone"):
        shutil.rmtree(gone, ignore_errors=True)
    for old in _beside(path, "old"):
        if path.exists():
            _remove(old, path)
        else:
            old.replace(path)


def sync(path: Path, *, deep: bool = True) -> None:
    """Bring a file, or a folder and the files in it, to the disk.

    Args:
        path: The file or folder.
        deep: Whether the files of a folder are meant too, or its list of names alone.

    Raises:
        OSError: If the disk does not take it.
    """
    if not path.is_dir():
        _fsync(path)
        return
    if deep:
        for inside in path.iterdir():
            sync(inside)
    with suppress(OSError):  # some network file systems know no fsync of a folder
        _fsync(path)


def is_full_disk(err: OSError) -> bool:
    """Say whether an error means that there is no room: disk, quota or size limit."""
    return err.errno in _FULL


def sha256_of(path: Path) -> str:
    """Hash a file's content, in hexadecimal."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _own_token() -> str:
    """Name what this process alone writes: others, of other machines too, share the folder."""
    return f"{os.getpid()}-{token_hex(4)}"


def _remove(old: Path, path: Path) -> None:
    """Remove what was replaced; half of it is never taken for the whole."""
    gone = path.with_name(f".{path.name}.gone.{_own_token()}")
    old.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _beside(path: Path, kind: str) -> list[Path]:
    # exactly so: ".f.old." also begins the names that belong to a folder called "f.old"
    own = re.compile(re.escape(f".{path.name}.{kind}.") + _OWN_TOKEN)
    if not path.parent.is_dir():
        return []
    return [file for file in path.parent.iterdir() if own.fullmatch(file.name)]


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
