"""The bar of work that takes a while: n of N."""

from typing import NoReturn

from tqdm.auto import tqdm

from dfl.processes import launched_rank


def progress(what: str, total: int, *, done: int = 0, unit: str = "it") -> "tqdm[NoReturn]":
    """Show on the standard error how far something is, where that is a terminal.

    Of several processes the first one shows it. Use it in a ``with`` statement, and call its
    ``update()`` after each item; it goes away at the end.

    Args:
        what: What is done.
        total: How many items there are.
        done: How many of them were done before.
        unit: What an item is, for the speed.
    """
    hidden = True if launched_rank() else None  # None: where there is no terminal
    return tqdm(desc=what, total=total, initial=done, unit=unit, leave=False, disable=hidden)
