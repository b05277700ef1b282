import threading
import time
from types import SimpleNamespace

import pytest

from dfl.features.first_process import on_first_process


def _processes(work, count: int) -> tuple[list[object], list[object]]:
    """Run the work on simulated processes; what each got, and all that was sent."""
    barrier, box, sent = threading.Barrier(count), [None], []
    results: list[object] = [None] * count

    def process(rank: int) -> None:
        def broadcast(value: object) -> object:
            if rank == 0:
                box[0] = value
                sent.append(value)
            barrier.wait(5)
            got = box[0]
            barrier.wait(5)
            return got

        strategy = SimpleNamespace(broadcast=broadcast)
        trainer = SimpleNamespace(
            world_size=count, is_global_zero=rank == 0, global_rank=rank, strategy=strategy
        )
        try:
            results[rank] = on_first_process(trainer, lambda: work(rank), news_s=0.01)
        except ValueError as err:
            results[rank] = err

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, sent


def test_on_first_process__the_others_hear_from_long_work() -> None:
    def work(rank: int) -> str:
        time.sleep(0.2)
        return f"done by {rank}"

    results, sent = _processes(work, 3)
    assert results == ["done by 0"] * 3
    assert sent.count(False) > 2


def test_on_first_process__its_error_is_everybodys() -> None:
    def work(rank: int) -> None:
        raise ValueError(f"of {rank}")

    results, _ = _processes(work, 2)
    assert [str(result) for result in results] == ["of 0"] * 2


def test_on_first_process__alone() -> None:
    trainer = SimpleNamespace(world_size=1)
    assert on_first_process(trainer, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        on_first_process(trainer, lambda: 1 / 0)
