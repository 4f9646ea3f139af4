"""End of an evaluation or an upscaling by Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

_TERMINATED = 143  # the status that a shell reports after SIGTERM

_log = logging.getLogger(__name__)


def stop_if_terminated(trainer: Trainer) -> None:
    """End the loop over the images if SIGTERM has arrived: Lightning's loops of test and predict do not.

    Raises:
        SIGTERMException: SIGTERM has arrived.
    """
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
        raise SystemExit(_TERMINATED if trainer.is_global_zero else 0) from None
    except SystemExit:
        # Lightning's reaction to Ctrl-C, after it has killed the other ranks.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
