"""The same work for many files at once, and for many processes of a machine once."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout
from tqdm import tqdm

from d2csr.errors import CheckpointError, DataError

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
def file_lock(lock: Path, what: str) -> Iterator[None]:
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


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, and rename the file written there to ``path`` at the end.

    At every moment ``path`` holds its former content or the whole new one. The temporary file,
    ``.NAME.TOKEN.partial``, is removed when an exception is raised.

    Args:
        path: the file to write; its folder is made.
        durable: also wait until content and name are on the disk, for files that have to survive a power failure.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if durable:
            sync_to_disk(partial)
        partial.replace(path)
        if durable:
            sync_to_disk(path.parent)
    finally:  # also where the user interrupts
        with contextlib.suppress(OSError):
            partial.unlink()


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; not all file systems can do it for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def write_checkpoint_file(path: Path) -> Iterator[Path]:
    """Write a file that has to survive a power failure, as :func:`atomic_write`, with a message where that fails.

    Raises:
        CheckpointError: it cannot be written; the former one is untouched.
    """
    try:
        with atomic_write(path, durable=True) as partial:
            yield partial
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        left = " The former file is unchanged." if path.exists() else ""
        raise CheckpointError(f"{path}: cannot be written ({error}).{left}") from None
