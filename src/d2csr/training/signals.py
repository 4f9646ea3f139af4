"""Signals that ask a training to end: it saves between two batches, and then does."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from d2csr.errors import Stopped

_log = logging.getLogger(__name__)

# Ctrl-C; kill, and the end of a job; a closed terminal; the two that SLURM is usually told to send before the end.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


class StopSignals:
    """While this context is open, a signal is noted, and a second Ctrl-C ends the process at once.

    Args:
        quiet: say nothing on the terminal.
        before_the_end: called before a second Ctrl-C ends the process.

    Attributes:
        received: the first signal, or None.
    """

    def __init__(self, *, quiet: bool = False, before_the_end: Callable[[], None] = lambda: None) -> None:
        self.received: int | None = None
        self._quiet = quiet
        self._before_the_end = before_the_end
        self._pid = os.getpid()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in SIGNALS:
            former = signal.getsignal(number)
            if former is not signal.SIG_IGN and former is not None:  # nohup, and the background of a shell
                self._former[number] = former
        self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def install(self) -> None:
        """Put the handlers in place, again if need be: Lightning has some of its own."""
        for number in self._former:
            signal.signal(number, self._note)

    def hand_over(self, stop: Stopped) -> None:
        """Call the handler that was there before: that of submitit queues the job again, and ends the process."""
        former = self._former.get(stop.signal)
        if callable(former) and former is not signal.default_int_handler:
            _log.info("%s", stop)
            former(stop.signal, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker
            return
        if self.received is None:
            self.received = number
            hint = " Press Ctrl-C again to end at once." if number == signal.SIGINT else ""
            self._say(f"\n{signal.Signals(number).name}: saving after this step.{hint}\n")
        elif number == signal.SIGINT:
            self._before_the_end()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _say(self, text: str) -> None:
        if not self._quiet:
            os.write(2, text.encode())


def stopped(number: int, step: int, saved: Path) -> Stopped:
    """Return what ends a run after a signal, with a message that says how to go on."""
    run = saved.parent.parent
    return Stopped(
        f"stopped by {signal.Signals(number).name} after step {step}; saved to {saved}.\n"
        f"To go on, add to the same command: resume={run} hydra.run.dir={run}",
        signal=number,
    )


class Agreement:
    """Lets all processes see the largest of their wishes, one call later, so that none waits for another.

    Args:
        world_size: how many processes there are; alone, a wish is granted at once.
    """

    def __init__(self, world_size: int) -> None:
        self._group: Any = torch.distributed.new_group(backend="gloo") if world_size > 1 else None
        self._wishes: Tensor | None = None
        self._work: Any = None

    def on(self, wish: int) -> int:
        """Hand in a wish, a number from 0 up, and return the largest wish of the call before."""
        if self._group is None:
            return wish
        granted = 0
        if self._work is not None and self._wishes is not None:
            self._work.wait()
            granted = int(self._wishes.item())
        self._wishes = torch.tensor([wish])
        self._work = torch.distributed.all_reduce(
            self._wishes, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        return granted
