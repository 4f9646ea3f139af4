"""First steps of epochs, estimated from the steps and epochs that a training logged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d2csr.plotting.run_log import Series


@dataclass(frozen=True)
class EpochStarts:
    """First steps of epochs, both from 0.

    With the same number of steps in each epoch, a row of step s in epoch e says e · n ≤ s < (e + 1) · n. The smallest
    n that all rows allow is exact if one of them is the last step of an epoch, as in each validation.

    Attributes:
        length: steps of an epoch; ``None`` if it changed, as in a run that was resumed with another batch size.
        count: epochs that have begun.
        logged: the epoch of each logged step.
    """

    length: int | None
    count: int
    logged: Series

    def step(self, epoch: int) -> float:
        """Return the first step of an epoch. Without ``length``, it is the step after the last one logged before it."""
        if self.length is not None:
            return float(epoch * self.length)
        before = int(np.searchsorted(self.logged.values, epoch))  # rows of earlier epochs
        return float(self.logged.steps[before - 1] + 1) if before else 0.0


def epoch_starts(logged: Series) -> EpochStarts:
    """Estimate the starts of epochs from the epoch of each logged step, in the order of the steps."""
    epochs = np.maximum.accumulate(np.floor(logged.values)) if len(logged.values) else logged.values
    steps, count = logged.steps, int(epochs[-1]) + 1 if len(epochs) else 0
    least = int(np.max(steps // (epochs + 1), initial=-1)) + 1
    later = epochs > 0
    most = np.min(steps[later] // epochs[later], initial=np.inf)
    length = least if count and 0 < least <= most else None
    return EpochStarts(length, count, Series(steps, epochs))
