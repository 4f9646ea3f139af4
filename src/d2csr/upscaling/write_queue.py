"""Threads that write results while the next ones are computed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from d2csr.files import cores

_MAX_THREADS = 8  # on a node of many cores, more results would wait in memory
_MAX_BYTES = 10**9  # of results that wait or are written, beyond the first two

Outcome = TypeVar("Outcome")


@dataclass
class _Task:
    """A result that waits, is written, or is written but not reported."""

    size: int
    finished: bool = False
    report: Callable[[], None] | None = None


class WriteQueue:
    """Runs writes in several threads and reports them in the order in which they were submitted.

    Encoding a PNG takes longer than computing it on a GPU; it releases Python's lock, so that threads suffice.

    Args:
        threads: at most 8; by default the CPU cores of this process.
        max_bytes: of all results that wait or are written. The first two are always accepted, so that one is written
            while the next one is computed, whatever their size is.
    """

    def __init__(self, threads: int | None = None, max_bytes: int = _MAX_BYTES) -> None:
        self._most = min(threads or cores(), _MAX_THREADS)
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(self._most, "write")
        self._tasks: deque[_Task] = deque()  # in the order of their submission
        self._changed = threading.Condition()
        self._failure: BaseException | None = None

    def submit(self, write: Callable[[], Outcome], report: Callable[[Outcome], None], size: int) -> None:
        """Queue a write; wait while the queue is full.

        Args:
            write: writes a result, in any of the threads.
            report: called with what ``write`` returned, after the reports of all earlier writes; one at a time.
            size: the bytes of the result.

        Raises:
            BaseException: an earlier ``write`` or ``report`` raised it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._admits(size))
            self._raise_failure()
            task = _Task(size)
            self._tasks.append(task)
        self._pool.submit(self._run, task, write, report)

    def close(self, cancel: bool = False) -> None:
        """Wait for all writes, or with ``cancel`` for those that have begun.

        Raises:
            BaseException: a ``write`` or ``report`` raised it; not with ``cancel``.
        """
        self._pool.shutdown(wait=True, cancel_futures=cancel)
        if not cancel:
            self._raise_failure()

    def _admits(self, size: int) -> bool:
        waiting = [task.size for task in self._tasks if not task.finished]
        fits = len(waiting) <= self._most and sum(waiting) + size <= self._max_bytes
        return len(waiting) < 2 or fits or self._failure is not None

    def _run(self, task: _Task, write: Callable[[], Outcome], report: Callable[[Outcome], None]) -> None:
        try:
            outcome = write()
            task.report = lambda: report(outcome)
        except BaseException as error:
            self._failure = self._failure or error
        with self._changed:
            task.finished = True
            try:
                while self._tasks and self._tasks[0].finished:
                    if report_next := self._tasks.popleft().report:
                        report_next()
            except BaseException as error:
                self._failure = self._failure or error
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
