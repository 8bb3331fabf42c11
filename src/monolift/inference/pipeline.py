"""Reading, detecting and writing at the same time: one thread each, with short queues between them.

Pillow decodes, resizes and encodes outside Python's lock, and so do the networks, so the three overlap on two cores and more.
Order is kept, an exception appears where it would without threads, and the queues bound what is in memory.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
PATIENCE = 0.1  # seconds after which a waiting thread looks whether it is still wanted


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The items in their order, made by another thread up to ``depth`` ahead of who takes them.

    An exception of ``items`` is raised after the items before it. Nothing is made before the first item is asked for, and
    nothing after the iterator is closed.
    """
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    stopped = threading.Event()

    def make() -> None:
        try:
            for item in items:
                if not _put(made, (True, item), stopped):
                    return
            _put(made, (False, None), stopped)
        except BaseException as error:  # raised where the items are taken
            _put(made, (False, error), stopped)

    thread = threading.Thread(target=make, name="monolift-read", daemon=True)
    thread.start()
    try:
        while True:
            more, item = made.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stopped.set()
        thread.join()


def newest(items: Iterable[T]) -> Iterator[T]:
    """As `ahead`, but items that nobody has taken when the next is there are left out: for sources that do not wait."""
    fresh = threading.Condition()
    waiting: list[T] = []
    ended: list[BaseException | None] = []
    stopped = threading.Event()

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                with fresh:
                    waiting[:] = [item]
                    fresh.notify()
                if stopped.is_set():
                    return
        except BaseException as failure:  # raised where the items are taken
            error = failure
        with fresh:
            ended.append(error)
            fresh.notify()

    threading.Thread(target=make, name="monolift-live", daemon=True).start()
    try:
        while True:
            with fresh:
                while not waiting and not ended:
                    fresh.wait(PATIENCE)
                item = waiting.pop() if waiting else None
            if item is not None:
                yield item
            elif ended[0] is None:
                return
            else:
                raise ended[0]
    finally:
        stopped.set()


def _put(target: queue.Queue[Any], item: Any, stopped: threading.Event) -> bool:
    """Whether the item could be handed over before ``stopped``."""
    while not stopped.is_set():
        try:
            target.put(item, timeout=PATIENCE)
            return True
        except queue.Full:
            continue
    return False


class Behind(Generic[T]):
    """Calls ``work`` on items in their order in another thread, at most ``depth`` behind who hands them over.

    As a context manager: leaving waits for what was handed over, or, after an exception, for the item at work only. An
    exception of ``work`` is raised in the next call or on leaving; items after it are dropped.
    """

    def __init__(self, work: Callable[[T], None], depth: int = 2) -> None:
        self._work = work
        self._items: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="monolift-write", daemon=True)

    def __enter__(self) -> Behind[T]:
        self._thread.start()
        return self

    def __call__(self, item: T) -> None:
        _put(self._items, (True, item), self._stopped)
        self._raise()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stopped.set()
        else:
            _put(self._items, (False, None), self._stopped)
        self._thread.join()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                more, item = self._items.get(timeout=PATIENCE)
            except queue.Empty:
                continue
            if not more:
                return
            try:
                self._work(item)
            except BaseException as error:  # raised in the thread that hands over
                self._error = error
                self._stopped.set()
