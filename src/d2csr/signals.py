"""Signals that end a training after the present step, an evaluation or an upscaling after the present image."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from d2csr.errors import Stopped

_log = logging.getLogger(__name__)

# Ctrl-C; kill, and the end of a job; a closed terminal; two that SLURM usually sends before the end.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class StopSignals:
    """Context that records the first signal as ``received``, and prints that, unless it is ``quiet``.

    A second Ctrl-C ends the process at once.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.received: int | None = None
        self._quiet = quiet
        self._pid = os.getpid()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        found = {number: signal.getsignal(number) for number in SIGNALS}
        ignored = (signal.SIG_IGN, None)  # under nohup and in the background
        self._former = {number: former for number, former in found.items() if former not in ignored}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def install(self) -> None:
        """Install the handlers, again if Lightning has replaced them."""
        for number in self._former:
            signal.signal(number, self._record)

    def hand_over(self, stop: Stopped) -> None:
        """Call the former handler: submitit's requeues the job and ends the process."""
        former = self._former.get(stop.signal)
        if callable(former) and former is not signal.default_int_handler:
            _log.info("%s", stop)
            former(stop.signal, None)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker has the same handler
            return
        if self.received is None:
            self.received = number
            if not self._quiet:
                hint = " Press Ctrl-C again to end at once." if number == signal.SIGINT else ""
                os.write(2, f"\n{signal.Signals(number).name}: saving after this step.{hint}\n".encode())
        elif number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def stopped(number: int, step: int, saved: Path) -> Stopped:
    """Return the exception that ends a run after a signal."""
    run = saved.parent.parent
    return Stopped(
        f"stopped by {signal.Signals(number).name} after step {step}; saved to {saved}.\n"
        f"To resume, add to the same command: resume={run} hydra.run.dir={run}",
        signal=number,
    )


class SignalExchange:
    """Exchange of the largest request of all ranks, known one call later, so that no rank waits for another.

    A single rank gets its own request at once.
    """

    def __init__(self, world_size: int, timeout: timedelta | None = None) -> None:
        self._group: Any = dist.new_group(backend="gloo", timeout=timeout) if world_size > 1 else None
        self._pending: tuple[Tensor, Any] | None = None

    def exchange(self, request: int) -> int:
        """Send a request, a number from 0 up, and return the largest one of the previous call."""
        if self._group is None:
            return request
        largest = 0
        if self._pending is not None:
            value, work = self._pending
            work.wait()
            largest = int(value.item())
        value = torch.tensor([request])
        self._pending = value, dist.all_reduce(value, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return largest


def stop_if_terminated(trainer: Trainer) -> None:
    """Raise SIGTERMException if SIGTERM has arrived: Lightning's loops of test and predict do not."""
    if trainer.received_sigterm:
        raise SIGTERMException


@contextmanager
def statuses_of_signals(trainer: Trainer) -> Iterator[None]:
    """Give the end of ``trainer.test`` or ``trainer.predict`` by a signal the status of a shell.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C.
        SystemExit: SIGTERM arrived; with status 143, on other ranks than rank zero with 0.
    """
    try:
        yield
    except SIGTERMException:  # Lightning would exit with status 0
        _log.error("terminated")
        raise SystemExit(128 + signal.SIGTERM if trainer.is_global_zero else 0) from None
    except SystemExit:
        # Lightning's reaction to Ctrl-C, after it has killed the other ranks.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
