"""Schedules of the learning rate and of the divergence weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from d2csr.checks import number, whole_number


class ClosedFormScheduler(LRScheduler):
    """Learning rate as a function of the count of steps: base rate × factor.

    The state is the count alone, so a resumed run uses the settings and the base rate of its own configuration.
    """

    def _factor(self, count: int) -> float:
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each parameter group."""
        return [base * self._factor(self.last_epoch) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the count of steps."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the count of steps and the learning rates that follow from it."""
        self.last_epoch = state_dict["last_epoch"]
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate


class StepDecay(ClosedFormScheduler):
    """The official schedule: base rate × decay_factor^⌊count / decay_every⌋.

    The count is one of epochs (or steps), and the factor is above 0.
    """

    def __init__(self, optimizer: Optimizer, decay_every: int, decay_factor: float) -> None:
        self.decay_every = whole_number("decay_every", decay_every)
        self.decay_factor = number("decay_factor", decay_factor, above=0)
        super().__init__(optimizer)

    def _factor(self, count: int) -> float:
        return self.decay_factor ** (count // self.decay_every)


class CosineWithWarmup(ClosedFormScheduler):
    """Linear warm-up, then half a cosine (SGDR, Loshchilov and Hutter, ICLR 2017, without restarts).

    ``warmup`` and ``total`` are epochs (or steps) of the warm-up and of the whole schedule. The first epoch has
    1 / (warmup + 1) of the base rate. The rate after ``total`` is ``minimum``, as a fraction of the base rate.
    """

    def __init__(self, optimizer: Optimizer, warmup: int, total: int, minimum: float) -> None:
        self.warmup = whole_number("warmup", warmup, least=0)
        self.total = whole_number("total", total, least=self.warmup + 1)
        self.minimum = number("minimum", minimum, least=0)
        super().__init__(optimizer)

    def _factor(self, count: int) -> float:
        if count < self.warmup:
            return (count + 1) / (self.warmup + 1)
        progress = min((count - self.warmup) / (self.total - self.warmup), 1.0)
        return self.minimum + (1 - self.minimum) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class DivergenceWeightSchedule:
    """Weight of the divergence loss: weight × decay_factor^⌊epoch / decay_every⌋ in active epochs, 0 in all others.

    An epoch, counted from 0, is active if epoch > after and epoch mod period < active.
    """

    weight: float  #: before the first decay; 0 turns the loss off
    after: int  #: the last epoch of the initial pause; −1 for no pause
    period: int  #: epochs in a period
    active: int  #: active epochs at the start of each period
    decay_every: int  #: epochs between two decays of the weight
    decay_factor: float  #: the factor of each decay

    def __post_init__(self) -> None:
        number("weight", self.weight, least=0)
        whole_number("after", self.after, least=-1)
        whole_number("period", self.period)
        whole_number("active", self.active, least=0)
        whole_number("decay_every", self.decay_every)
        number("decay_factor", self.decay_factor, least=0)

    def __call__(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 0."""
        if epoch <= self.after or epoch % self.period >= self.active:
            return 0.0
        return self.weight * self.decay_factor ** (epoch // self.decay_every)
