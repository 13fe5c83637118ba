"""Run one stage of a pipeline in a thread, with a bounded queue between it and the next one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

from typing_extensions import Self

T = TypeVar("T")


class _End:
    """Last item of a queue, with the exception that ended the producer, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Producer(Generic[T]):
    """Thread that puts items into a queue until they end or it is stopped."""

    def __init__(self, items: Iterable[T], count: int) -> None:
        self.queue: Queue[T | _End] = Queue(count)
        self._items, self._stop = items, Event()
        self._thread = Thread(target=self._work, name="avseg-ahead", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        error: BaseException | None = None
        items = iter(self._items)
        try:
            while not self._stop.is_set():
                self.queue.put(next(items))
        except StopIteration:
            pass
        except BaseException as caught:  # raised again in the thread that takes the items
            error = caught
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        if not self._stop.is_set():
            self.queue.put(_End(error))

    def stop(self) -> None:
        """End the thread; a thread that waits for a free place gets one."""
        self._stop.set()
        while self._thread.is_alive():
            with suppress(Empty):
                self.queue.get(timeout=0.01)


def ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """Yield items in order, while a thread computes the next ones.

    Args:
        items: Computed in a thread of its own. An exception is raised to the caller after the items before it.
        count: Largest number of items that wait.
    """
    producer = _Producer(items, count)
    try:
        while not isinstance(item := producer.queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        producer.stop()


class Behind:
    """Calls that run in one thread in order, while the caller goes on; use it in a ``with`` block.

    The exception of a call is raised by a later :meth:`submit`, or at the end of the block unless that raised itself.

    Args:
        count: Calls that may wait; a further one blocks until the oldest has run.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(1, "avseg-behind")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, function: Callable[..., None], *arguments: object) -> None:
        """Run a call after those before it."""
        if len(self._waiting) >= self._count:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._waiting and kind is None:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
