"""A few threads that stay: for work that releases Python's lock, such as a simulator's."""

import threading
from collections.abc import Callable, Iterator


class Threads:
    """The calling thread and `count - 1` others, which start with the first work and sleep between works."""

    def __init__(self, count: int) -> None:
        self._others = max(0, count - 1)
        self._started = False
        self._closed = False
        self._work: Callable[[int], None] = lambda i: None
        self._todo: Iterator[int] = iter(())
        self._errors: list[BaseException] = []
        # a lock that is held until there is something to do, or until it is done: nothing wakes up faster
        self._go = [threading.Lock() for _ in range(self._others)]
        self._done = [threading.Lock() for _ in range(self._others)]

    def each(self, work: Callable[[int], None], n: int) -> None:
        """Call work(0) ... work(n - 1), each once, in any order, at the same time.

        Raises:
            BaseException: the first that a call raised; then some calls may not have been made.
        """
        if not self._others:
            for i in range(n):
                work(i)
            return
        if not self._started:
            self._start()
        # taking from an iterator is atomic: who is free takes the next
        self._work, self._todo = work, iter(range(n))
        for lock in self._go:
            lock.release()
        self._take()
        for lock in self._done:
            lock.acquire()
        if self._errors:
            error = self._errors[0]
            self._errors = []
            raise error

    def close(self) -> None:
        """End the threads. Calling it twice is harmless."""
        if self._started and not self._closed:
            self._closed = True
            for lock in self._go:
                lock.release()
            for thread in self._threads:
                thread.join()

    def _start(self) -> None:
        self._started = True
        for lock in (*self._go, *self._done):
            lock.acquire()
        pairs = zip(self._go, self._done, strict=True)
        self._threads = [threading.Thread(target=self._serve, args=p, daemon=True, name="env") for p in pairs]
        for thread in self._threads:
            thread.start()

    def _serve(self, go: threading.Lock, done: threading.Lock) -> None:
        while True:
            go.acquire()
            if self._closed:
                return
            self._take()
            done.release()

    def _take(self) -> None:
        try:
            for i in self._todo:
                self._work(i)
        except BaseException as e:  # noqa: BLE001  raised again where the caller waits
            self._todo = iter(())
            self._errors.append(e)
