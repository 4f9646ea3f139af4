"""Lock of a run folder."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2csr.errors import TrainingError
from d2csr.files import require_regular_file

_log = logging.getLogger(__name__)

LOCK = ".lock"
_MAX_OWNER = 300  # characters; a host name has at most 253


@contextmanager
def lock_run_folder(run_dir: Path) -> Iterator[None]:
    """Keep other trainings out of a run folder, until this process ends or is killed.

    Forked workers do not inherit the lock. On a file system without locks, only processes of the same machine are
    noticed.

    Raises:
        TrainingError: another process trains in the folder.
        DataError: the lock is not a regular file.
        OSError: the folder cannot be written to.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = run_dir / LOCK
    if lock.exists():
        require_regular_file(lock)  # opening a FIFO would wait
    with lock.open("a+", encoding="utf-8", errors="replace") as file:
        file.seek(0)
        owner = file.read(_MAX_OWNER).split()
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError) or _is_running(owner):
                process = f"process {owner[1]} on {owner[0]}" if len(owner) == 2 else "another process"
                raise TrainingError(
                    f"{run_dir}: {process} trains in this folder. Wait until it ends, or name another folder by "
                    "hydra.run.dir=…."
                ) from None
            _log.warning("%s: this file system has no locks (%s). Start no second training here.", run_dir, error)
        file.truncate(0)
        file.write(f"{socket.gethostname()} {os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _is_running(owner: list[str]) -> bool:
    """Return whether the owner is a running process of this machine."""
    if len(owner) != 2 or owner[0] != socket.gethostname() or not owner[1].isdecimal():
        return False
    try:
        os.kill(int(owner[1]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return int(owner[1]) != os.getpid()
