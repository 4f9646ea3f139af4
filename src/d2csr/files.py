"""The same work for many files at once, and for many processes of a machine once."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
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


def user_path(path: str | Path) -> Path:
    """Return a path that a user typed, with ``~`` and ``~name`` expanded.

    Raises:
        DataError: there is no such user, or the path holds a NUL.
    """
    if "\0" in str(path):
        raise DataError(f"{str(path)!r}: a path cannot hold a NUL character.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DataError(f"{path}: there is no such user. Write the folder without ~.") from None


def require_regular_file(path: str | Path, max_bytes: int | None = None) -> None:
    """Refuse what may block or never end when it is read: a FIFO, a device, a socket; and a folder.

    Args:
        path: of the file.
        max_bytes: the largest size.

    Raises:
        DataError: it is missing, of another kind, or larger.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - called for each image that is read, and a Path is slow to make
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: a folder, not a regular file.")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file.")
    if max_bytes is not None and status.st_size > max_bytes:
        raise DataError(f"{path}: has {status.st_size:,} bytes, above the limit of {max_bytes:,}.")


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = False, token: str = "") -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, and rename the file written there to ``path`` at the end.

    At every moment ``path`` holds its former content or the whole new one. The temporary file,
    ``.NAME.TOKEN….partial`` with a NAME of at most 32 characters, is removed when an exception is raised.

    Args:
        path: the file to write; its folder is made.
        durable: also wait until content and name are on the disk, for files that have to survive a power failure.
        token: marks the temporary files of a run, to find those of a killed process; 32 characters at most.

    Raises:
        OSError: the file cannot be written.
    """
    # A name has at most 255 bytes, and a character up to 4.
    partial = path.with_name(f".{path.name[:32]}.{token}{uuid4().hex}.partial")
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
