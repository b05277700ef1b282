"""Folders that are made as a whole: filled beside, then put in the place of what was there."""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from dfl.files import OWN_TOKEN, own_token, sync
from dfl.lock import locked

__all__ = ["making_folder", "recover_folder", "replace_folder"]

_RANDOM: Final = "[a-z0-9_]{8}"  # as mkdtemp names folders


@contextmanager
def making_folder(path: Path, *, workspace: Path | None = None) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends it takes the place of `path`.

    What a killed process left is put right first. If the block raises, `path` stays as it is.

    Args:
        path: The folder to make; its parents are made too.
        workspace: Where the unfinished folder is kept, on the same file system, by a caller that
            has locked `path`; by default it is locked here, and kept beside it.

    Yields:
        The folder to fill.
    """
    if path.is_symlink():  # the folder that it leads to is made, and the link stays
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if workspace is None:
            stack.enter_context(locked(path))
            recover_folder(path)
        beside = workspace or path.parent
        for left in _unfinished(beside, path.name):
            shutil.rmtree(left, ignore_errors=True)  # of a process that was killed: it is locked
        partial = Path(mkdtemp(prefix=f".{path.name}.new.", dir=beside))
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        partial.chmod(0o755)  # mkdtemp makes it private
        yield partial
        replace_folder(partial, path)


def replace_folder(new: Path, path: Path) -> None:
    """Put a finished folder in the place of another by two renames; a failure undoes the first.

    A process that is killed between the two leaves the old one as ``.<name>.old.<...>``;
    `recover_folder` puts it back.

    Args:
        new: The finished folder, on the same file system.
        path: Where it goes.
    """
    old = path.with_name(f".{path.name}.old.{own_token()}")
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


def _unfinished(folder: Path, name: str) -> list[Path]:
    """List the folders that `making_folder` was filling; names of others may begin alike."""
    own = re.compile(re.escape(f".{name}.new.") + _RANDOM)
    return [path for path in folder.iterdir() if own.fullmatch(path.name)]


def _remove(old: Path, path: Path) -> None:
    """Remove what was replaced; half of it is never taken for the whole."""
    gone = path.with_name(f".{path.name}.gone.{own_token()}")
    old.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _beside(path: Path, kind: str) -> list[Path]:
    # exactly so: ".f.old." also begins the names that belong to a folder called "f.old"
    own = re.compile(re.escape(f".{path.name}.{kind}.") + OWN_TOKEN)
    if not path.parent.is_dir():
        return []
    return [file for file in path.parent.iterdir() if own.fullmatch(file.name)]
