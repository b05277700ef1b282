"""Work for threads on more items than memory is to hold at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

from dfl.progress import progress

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 1024  # what waits in the pool takes more than a kilobyte each


def in_threads(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, what: str, total: int
) -> Iterator[R]:
    """Map as a pool of threads does, which by itself would take all items at once; with a bar.

    Args:
        function: What to do with an item.
        items: The items; some of them are taken ahead.
        threads: How many threads do it.
        what: What the bar says.
        total: How many items there are.

    Yields:
        The results, in the order of the items.
    """
    iterator = iter(items)
    with (
        ThreadPoolExecutor(threads) as pool,
        progress(what, total, unit="image") as bar,
    ):
        while window := list(islice(iterator, AT_ONCE)):
            for result in pool.map(function, window):
                yield result
                bar.update()
