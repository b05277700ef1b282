"""Work that one process does for all of them."""

import threading
from collections.abc import Callable
from typing import TypeVar, cast

import lightning.pytorch as pl

__all__ = ["on_first_process"]

T = TypeVar("T")


def on_first_process(trainer: pl.Trainer, work: Callable[[], T], *, news_s: float = 20.0) -> T:
    """Do something on the first process, and give all of them its result, or its error.

    It may take as long as it takes: the first process tells the others now and then that it is at
    it, so that none of them gives up.

    Args:
        trainer: The trainer of this process; every process has to call this.
        work: What to do; only the first process does.
        news_s: Seconds between two signs of life, far below the half hour that a collective waits
            by default.

    Returns:
        What `work` returned there.

    Raises:
        Exception: What `work` raised there; without it the others would wait for ever.
    """
    if trainer.world_size == 1:
        return work()
    worker = _Worker(work) if trainer.is_global_zero else None
    while True:
        if worker is not None:
            worker.join(news_s)
        done: bool = trainer.strategy.broadcast(worker is not None and not worker.is_alive())
        if done:
            break
    result, error = trainer.strategy.broadcast(
        (worker.result, worker.error) if worker is not None else (None, None)
    )
    if error is not None:
        raise error
    return cast(T, result)


class _Worker(threading.Thread):
    """Work in the background; a daemon, so that it does not outlive an interrupted program."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.result: object = None
        self.error: Exception | None = None
        self._work = work
        self.start()

    def run(self) -> None:
        try:
            self.result = self._work()
        except Exception as err:
            self.error = err
