"""The processes that prepare batches."""

from __future__ import annotations

import os
import signal
from types import FrameType


def outlive_signals(worker: int = 0) -> None:
    """Let a worker ignore the signals that are meant for its training: that one still needs batches before it can stop.

    Ctrl-C in a terminal, and the end of a job on a cluster, reach all processes. The second SIGTERM is obeyed, since
    that is how Python ends the workers that are left over; and with its training gone a worker ends by itself.

    Args:
        worker: its number.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ignore_once)


def _ignore_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, lambda *_: os._exit(0))
