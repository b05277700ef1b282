"""Which class reads which container, and the containers that are open."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dfl.data.containers.base import Container
from dfl.data.containers.tables import ArrowFile, ParquetFile
from dfl.data.containers.tar import TarFile

KINDS: Final[dict[str, Callable[[Path], Container]]] = {
    ".tar": TarFile,
    ".parquet": ParquetFile,
    ".arrow": ArrowFile,
}
"""By the ending of a container's name, what reads it."""


class OpenContainers:
    """Containers that are open; the least recently used are closed.

    Args:
        most: How many are open at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._opened: OrderedDict[tuple[str, int, int], Container] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: Path) -> Container:
        """Open a container, or give the one that is open.

        Raises:
            FileNotFoundError: If there is no such file.
            ContainerError: If it is damaged.
        """
        state = path.stat()
        key = (str(path), state.st_size, state.st_mtime_ns)
        with self._lock:
            container = self._opened.get(key)
            if container is None:
                container = self._opened[key] = KINDS[path.suffix](path)
                while len(self._opened) > self._most:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(key)
            return container

    def after_fork(self, *, keeps: bool) -> None:
        """Begin anew in a forked process; what has no position in its file may stay open."""
        self._lock = threading.Lock()
        if not keeps:
            self._opened.clear()


_tars = OpenContainers(1 << 14)  # an index of offsets each
_tables = OpenContainers(4)  # some decoded rows each, and a position that a fork would share


def open_container(path: Path) -> Container:
    """Open a container, or give the one that is open.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged.
    """
    return (_tars if path.suffix == ".tar" else _tables).open(path)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=lambda: _tars.after_fork(keeps=True))
    os.register_at_fork(after_in_child=lambda: _tables.after_fork(keeps=False))
