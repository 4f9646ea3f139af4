"""The place in a training from which it can go on as if it had never stopped."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

# Where a checkpoint keeps it.
KEY = "position"


@dataclass(frozen=True)
class Position:
    """What is behind, between two batches.

    Attributes:
        epoch: epochs that are done.
        batch: batches of the present epoch that are done.
        step: batches that are done in all, as the loggers count them.
        closed: what follows a batch is done as well: the validation, where one is due.
        patches: patches in a batch of all processes; 0 if unknown.
        rows: rows of the CSV log that are behind.
        random: the state of each random number generator, one entry a process.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    closed: bool = True
    patches: int = 0
    rows: int = 0
    random: list[dict[str, Any]] = field(default_factory=list)

    @property
    def place(self) -> tuple[int, int, bool]:
        """What tells two positions of a run apart."""
        return self.epoch, self.batch, self.closed

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors, for a checkpoint."""
        return asdict(self)

    def in_batches_of(self, patches: int) -> Position:
        """Return the position for another batch size: at the first batch that holds no patch which was seen already."""
        if not self.patches or not patches or self.patches == patches:
            return self
        return replace(self, batch=-(-self.batch * self.patches // patches), patches=patches)


def random_state() -> dict[str, Any]:
    """Return the state of the generators of Python, numpy and torch, CUDA's included, as plain values and tensors."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to a state that :func:`random_state` gave; on other GPUs, theirs are left alone."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
