"""Threads between reading, detecting and writing change neither order nor exceptions, and hold little."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from monolift.inference.pipeline import Behind, ahead, newest


def test_items_come_in_order_and_at_most_depth_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for k in range(20):
            made.append(k)
            yield k

    taken = []
    for k in ahead(items(), 2):
        taken.append(k)
        assert len(made) <= len(taken) + 3  # two in the queue and one in the maker's hand
    assert taken == list(range(20))


def test_an_exception_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    stream = ahead(items(), 4)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(stream)


def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    stream = ahead(iter(range(1000)), 1)
    assert next(stream) == 0
    assert threading.active_count() == before + 1
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_nothing_is_made_before_it_is_asked_for() -> None:
    made = []
    ahead((made.append(k) for k in range(3)), 2)
    assert made == []


def test_work_is_done_in_order_before_leaving() -> None:
    done: list[int] = []
    with Behind(done.append, depth=1) as hand_over:
        for k in range(50):
            hand_over(k)
    assert done == list(range(50))


@pytest.mark.parametrize("count", [1, 40], ids=["on leaving", "in a later call"])
def test_an_exception_of_the_work_is_raised_and_ends_it(count: int) -> None:
    done: list[int] = []

    def work(k: int) -> None:
        if k == 0:
            raise ValueError("disk full")
        done.append(k)

    with pytest.raises(ValueError, match="disk full"), Behind(work, depth=1) as hand_over:
        for k in range(count):
            hand_over(k)
    assert not done


def test_an_exception_outside_drops_what_waits() -> None:
    gate, done = threading.Event(), []

    def work(k: int) -> None:
        gate.wait(5)
        done.append(k)

    with pytest.raises(KeyboardInterrupt), Behind(work, depth=4) as hand_over:
        for k in range(4):
            hand_over(k)
        gate.set()
        raise KeyboardInterrupt
    assert len(done) <= 4


def test_the_newest_item_is_next_and_others_are_left_out() -> None:
    taken = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        assert taken.wait(5)
        yield from (1, 2, 3)

    items = newest(source())
    assert next(items) == 0
    taken.set()
    assert list(items)[-1] == 3


def test_an_error_of_a_live_source_comes_after_its_items() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("lost")

    items = newest(source())
    assert next(items) == 1
    with pytest.raises(OSError, match="lost"):
        next(items)
