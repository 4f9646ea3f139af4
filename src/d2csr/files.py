"""Atomic writes, file locks, checks of paths, and work on many files in threads."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout
from tqdm import tqdm

from d2csr.errors import CheckpointError, DataError, is_disk_full

log = logging.getLogger(__name__)

_PATIENCE = 1.0  # seconds until a progress bar or a message about waiting is shown

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    work: Callable[[Item], Result], items: Sequence[Item], *, label: str, threads: int
) -> list[Result | DataError]:
    """Call ``work`` for each item in threads, and return its results; a DataError takes the place of a result.

    On a terminal, a progress bar is shown after a second. Threads suffice: reading waits for the disk, and Pillow
    releases the interpreter lock while it decodes.
    """

    def guarded(item: Item) -> Result | DataError:
        try:
            return work(item)
        except DataError as error:
            return error

    pool = ThreadPoolExecutor(max(1, min(threads, len(items))))
    try:
        bar = {"unit": "image", "disable": None, "leave": False, "delay": _PATIENCE}
        return list(tqdm(pool.map(guarded, items), label, len(items), **bar))
    finally:
        pool.shutdown(cancel_futures=True)  # otherwise Ctrl-C would wait for all items


@contextmanager
def file_lock(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file, for processes that would do the same work; ``what`` they do is for a message.

    On a file system without locks, all of them continue.
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
    """Return a path with ``~`` and ``~name`` expanded; raise a DataError for an unknown user or a NUL character."""
    if "\0" in str(path):
        raise DataError(f"{str(path)!r}: a path cannot hold a NUL character.")
    try:
        return Path(str(path)).expanduser()  # a number in a configuration is a name, too
    except RuntimeError:
        raise DataError(f"{path}: there is no such user. Write the folder without ~.") from None


def require_folder(folder: str | Path, advice: str) -> Path:
    """Return a folder with ``~`` expanded; raise a DataError that ends in ``advice`` if it is missing or a file."""
    folder = user_path(folder)
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {problem}. {advice}")
    return folder


def require_regular_file(path: str | Path, max_bytes: int | None = None) -> os.stat_result:
    """Return the state of a file; raise a DataError if it is missing, too large, or not regular (a FIFO may block)."""
    try:
        status = os.stat(path)  # noqa: PTH116 - called for each image that is read, and a Path is slow to make
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file.")
    if max_bytes is not None and status.st_size > max_bytes:
        raise DataError(f"{path}: has {status.st_size:,} bytes, above the limit of {max_bytes:,}.")
    return status


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def find_checkpoint(path: str | Path, preferred: tuple[str, ...] = ("best.ckpt", "last.ckpt")) -> Path:
    """Return a checkpoint file, the first of ``preferred`` in a run folder, or ``model.safetensors`` in a folder.

    Raises:
        CheckpointError: there is none, or the path is neither a regular file nor a folder.
    """
    try:
        path = Path(path).expanduser()
        if path.is_file():
            return path
        exists = path.exists()
    except (RuntimeError, ValueError, OSError) as error:  # an unknown user after ~, a NUL byte, a name that is too long
        raise CheckpointError(f"{path}: not the path of a checkpoint ({error}).") from None
    if not path.is_dir():
        problem = "neither a regular file nor a folder" if exists else "no such checkpoint"
        raise CheckpointError(f"{path}: {problem}. Name a checkpoint or a run folder.")
    for name in (*preferred, "model.safetensors"):
        for candidate in (path / "checkpoints" / name, path / name):
            if candidate.is_file():
                return candidate
    raise CheckpointError(
        f"{path}: a folder without checkpoints/{preferred[0]} or model.safetensors. Name a checkpoint or a run folder."
    )


@contextmanager
def atomic_write(path: Path, *, durable: bool = False, token: str = "") -> Iterator[Path]:
    """Yield a temporary path beside ``path``, ``.NAME.TOKEN….partial``, and rename its file to ``path`` at the end.

    At every moment ``path`` holds its former content or all of the new one. An exception removes the temporary file.

    Args:
        path: the file to write; its folder is made.
        durable: wait until content and name are on the disk, for files that have to survive a power failure.
        token: marks the temporary files of a run, to find those of a killed process; 32 characters at most.
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
        with suppress(OSError):
            partial.unlink()


def sync_to_disk(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk; some file systems cannot do it for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def write_checkpoint_file(path: Path) -> Iterator[Path]:
    """Write a file by a durable :func:`atomic_write`, and raise a CheckpointError if that fails."""
    try:
        with atomic_write(path, durable=True) as partial:
            yield partial
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        left = " The former file is unchanged." if path.exists() else ""
        reason = "no space left on this disk" if is_disk_full(error) else error
        raise CheckpointError(f"{path}: cannot be written ({reason}).{left}") from error
