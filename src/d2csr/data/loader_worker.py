"""Start of a worker process of a data loader."""

from __future__ import annotations

import os
import signal
import tempfile
from types import FrameType

from d2csr.errors import DataError

# A worker passes its batches on through a socket in the temporary folder: /pymp-12345678/listener-12345678. The path of
# a socket has at most 107 bytes on Linux and 103 on macOS. With a longer one a thread of the worker fails, and the main
# process waits for the batch without an end.
_MOST_BYTES = 103 - 32
_SHORT_FOLDERS = "/tmp", "/var/tmp", "/dev/shm"


def start_worker(worker: int = 0) -> None:
    """Ignore the signals that stop a training, and use a short temporary folder.

    Raises:
        DataError: the path of the temporary folder is too long, and there is no other.
    """
    ignore_signals()
    if too_long(tempfile.gettempdir()):
        tempfile.tempdir = _short_folder()


def ignore_signals() -> None:
    """Ignore the signals that stop a training, which needs batches until it has stopped.

    Ctrl-C in a terminal and the end of a cluster job reach all processes. The second SIGTERM ends the worker, since
    Python ends remaining workers by SIGTERM. A worker whose training process is gone ends by itself.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ignore_once)


def too_long(folder: str) -> bool:
    """Return whether a socket of a worker has no place in this temporary folder."""
    return len(os.fsencode(folder)) > _MOST_BYTES


def _short_folder() -> str:
    for folder in _SHORT_FOLDERS:
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise DataError(
        f"TMPDIR={tempfile.gettempdir()}: the processes that prepare batches need a temporary folder of at most "
        f"{_MOST_BYTES} bytes. Set TMPDIR to a shorter one, or data.num_workers=0."
    )


def _ignore_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, lambda *_: os._exit(0))
