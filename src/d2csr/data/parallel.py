"""The same work for many files at once, and for many processes of a machine once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from tqdm import tqdm

from d2csr.errors import DataError

log = logging.getLogger(__name__)

_PATIENCE = 1.0  # seconds until a bar is shown, or waiting is spoken of

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return the CPU cores that this process may use; a cluster's job often has a few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    work: Callable[[Item], Result], items: Sequence[Item], *, label: str, threads: int
) -> list[Result | DataError]:
    """Do some work for every item, in threads, under a bar where that takes long and there is a terminal.

    Threads suffice: reading waits for the disk, and Pillow lets others run while it decodes.

    Returns:
        What the work returned for each item, or the DataError that it raised. Anything else that it raises ends all.
    """

    def guarded(item: Item) -> Result | DataError:
        try:
            return work(item)
        except DataError as error:
            return error

    pool = ThreadPoolExecutor(max(1, min(threads, len(items))))
    try:
        futures = [pool.submit(guarded, item) for item in items]
        for done in tqdm(
            as_completed(futures), label, len(futures), unit="image", disable=None, leave=False, delay=_PATIENCE
        ):
            done.result()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)  # else Ctrl-C would wait until all is done


@contextmanager
def one_at_a_time(lock: Path, what: str) -> Iterator[None]:
    """Let one process of those that come here in, and the next when it has left or was killed.

    This saves work and no more: where a file system knows no locks, all of them go on at once.

    Args:
        lock: a file for the purpose, which stays there.
        what: what is waited for, for a message.
    """
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=_PATIENCE)
        except Timeout:
            log.info("Waiting for another process that is %s.", what)
            held.acquire()
    except (NotImplementedError, OSError) as error:
        log.debug("%s: no lock (%s).", lock, error)
    try:
        yield
    finally:
        held.release()
