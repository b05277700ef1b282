"""Which class reads which container, and the containers that are open."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dfl.data.containers.arrow import ArrowFile
from dfl.data.containers.base import Container
from dfl.data.containers.parquet import ParquetFile
from dfl.data.containers.tar import TarFile

KINDS: Final[dict[str, Callable[[Path], Container]]] = {
    ".tar": TarFile,
    ".parquet": ParquetFile,
    ".arrow": ArrowFile,
}
"""By the ending of a container's name, what reads it."""

OPEN_TARS: Final = 1 << 14  # an index of offsets each
OPEN_TABLES: Final = 4  # some decoded rows each

_Key = tuple[str, int, int]
_lock = threading.Lock()
_tars: OrderedDict[_Key, Container] = OrderedDict()
_tables: OrderedDict[_Key, Container] = OrderedDict()


def open_container(path: Path) -> Container:
    """Open a container, or give the one that is open; the least recently used are closed.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged.
    """
    state = path.stat()
    key = (str(path), state.st_size, state.st_mtime_ns)
    opened, most = (_tars, OPEN_TARS) if path.suffix == ".tar" else (_tables, OPEN_TABLES)
    with _lock:
        container = opened.get(key)
        if container is None:
            container = opened[key] = KINDS[path.suffix](path)
            while len(opened) > most:
                opened.popitem(last=False)
        opened.move_to_end(key)
        return container


def _forget() -> None:
    """Open tables again in a forked process, which shares their positions with its parent.

    Tars have no position: their indexes stay.
    """
    global _lock
    _lock = threading.Lock()
    _tables.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
