"""Threads that take items in windows."""

from collections.abc import Iterator

import pytest

from dfl.threads import AT_ONCE, in_threads

BAR = {"what": "look", "total": 5}


def test_in_threads__keeps_the_order() -> None:
    count = 2 * AT_ONCE + 3
    found = in_threads(lambda i: -i, range(count), threads=4, **BAR)
    assert list(found) == [-i for i in range(count)]
    assert list(in_threads(str, [], threads=4, **BAR)) == []


def test_in_threads__takes_few_items_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10 * AT_ONCE):
            taken.append(item)
            yield item

    results = in_threads(lambda i: i, items(), threads=2, **BAR)
    assert next(results) == 0
    assert len(taken) == AT_ONCE
    results.close()  # type: ignore[attr-defined]  # it is a generator


def test_in_threads__an_error_comes_where_its_item_is() -> None:
    results = in_threads(lambda i: 1 // (2 - i), range(5), threads=2, **BAR)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
