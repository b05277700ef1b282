"""Writing without ever leaving half a file: write beside, bring to the disk, then rename."""

import csv
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final, Literal, TypeVar

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

VISIBLE_S: Final = 60.0
"""How long what one machine writes may take to be seen by another: NFS remembers that long."""

_ABANDONED_S: Final = 600.0
_PAUSES_S: Final = (0.05, 0.5, 2.0)
OWN_TOKEN: Final = "[0-9]+-[0-9a-f]{8}"
"""A pattern of what `own_token` gives."""
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
    partial = path.with_name(f".{path.stem}.{own_token()}{path.suffix}")
    try:
        yield partial
        if synced:
            sync(partial)
        rename(partial, path)
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


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder, which then takes the place of a file or empty folder at the target.

    NFS asks its server again where an answer was lost, and is told that the source is not there:
    it has its new name by then.

    Args:
        source: What is renamed.
        target: Its new name, on the same file system.

    Raises:
        OSError: If it cannot be.
    """
    own = source.stat()
    try:
        fresh(lambda: source.replace(target))
    except FileNotFoundError:
        if not target.exists() or not os.path.samestat(own, target.stat()):
            raise


def fresh(look: Callable[[], T]) -> T:
    """Do something with a file, and again where what NFS knew of it is stale.

    Another machine has put another file in its place, which the next look finds.

    Args:
        look: What opens the file by its name.

    Returns:
        What `look` returns.

    Raises:
        OSError: What `look` raises; ESTALE at the fourth time.
    """
    for pause in _PAUSES_S:
        try:
            return look()
        except OSError as err:
            if err.errno != errno.ESTALE:
                raise
        time.sleep(pause)
    return look()


def drop_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote a file have left beside it.

    Args:
        path: The file that `writing` makes. What is younger than ten minutes may be under way.
    """
    own = re.compile(re.escape(f".{path.stem}.") + OWN_TOKEN + re.escape(path.suffix))
    for partial in path.parent.iterdir():
        if not own.fullmatch(partial.name):
            continue
        with suppress(OSError):  # another process may be faster
            if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                partial.unlink()


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


def appears(file: Path, *, patience_s: float = 0.0, poll_s: float = 0.5) -> bool:
    """Look for a file that another machine may just have written.

    NFS remembers for up to a minute that there was none; a list of the folder asks the server anew.

    Args:
        file: The file.
        patience_s: How long to look again, in seconds.
        poll_s: Seconds between two looks.

    Returns:
        Whether it is there.
    """
    deadline = time.monotonic() + patience_s
    while not file.is_file():
        for folder in (file.parent.parent, file.parent):
            with suppress(OSError):
                list(folder.iterdir())
        if file.is_file():
            break
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


def write_csv(frame: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV so that every text in it can be read back, its index left out."""
    texts = frame.select_dtypes(exclude="number")
    # The writer leaves a lone carriage return bare, and the reader ends the row there.
    bare = any(texts[name].astype(str).str.contains("\r").any() for name in texts)
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
    frame.to_csv(path, index=False, lineterminator="\n", quoting=quoting)


def checksum_of(path: Path) -> str:
    """Hash a file's content, in hexadecimal."""

    def read() -> str:
        digest = sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    return fresh(read)


def own_token() -> str:
    """Name what this process alone writes: others, of other machines too, share the folder."""
    return f"{os.getpid()}-{token_hex(4)}"


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
