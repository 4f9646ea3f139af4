"""The numbers of the training that are not Lightning's: the paper's, unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from d2csr.errors import ConfigError
from d2csr.losses import check_scope, divergence_loss
from d2csr.schedules import DivergenceWeightSchedule, LearningRateSchedule


@dataclass(frozen=True)
class AdamSettings:
    """The optimizer, and how its learning rate falls.

    Attributes:
        lr: the learning rate of the first epoch.
        betas: Adam's running-average coefficients.
        eps: Adam's guard against division by zero.
        weight_decay: an L2 term in the gradient.
        halve_every: epochs until the learning rate is halved again.
    """

    lr: float = 1e-4
    betas: tuple[float, float] | list[float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-8
    halve_every: int = 2000

    def __post_init__(self) -> None:
        _numbers("optimizer", lr=self.lr, eps=self.eps, weight_decay=self.weight_decay)
        if len(self.betas) != 2:
            raise ConfigError(f"model.optimizer.betas: must be two numbers, got {self.betas!r}.")

    @property
    def schedule(self) -> LearningRateSchedule:
        """The learning rate as a function of the epoch."""
        return LearningRateSchedule(self.lr, self.halve_every)

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Adam:
        """Return an Adam over these parameters."""
        first, second = self.betas
        return torch.optim.Adam(
            parameters, lr=self.lr, betas=(first, second), eps=self.eps, weight_decay=self.weight_decay
        )


@dataclass(frozen=True)
class DivergenceSettings:
    """The divergence loss, and the epochs in which it works.

    Attributes:
        weight: its weight before it is first halved; 0 turns it off.
        margin_same: the margin between leaves of one parent.
        margin_diff: the margin between leaves of different parents.
        decay_rate: the factor of the terms between leaves of one parent.
        scope: ``batch`` standardises over the share of the batch that a process has, as the official code does on one
            device; ``image`` over each image by itself, whatever the batch and the processes.
        gradient: the loss gives a gradient, which is the method. The official code detaches it by mistake; ``False``
            repeats that.
        after: the last epoch of the first stretch, without this loss.
        period: epochs from one window to the next.
        active: epochs in a window.
        halve_every: epochs until the weight is halved again.
    """

    weight: float = 2e-5
    margin_same: float = 2e-5
    margin_diff: float = 5e-5
    decay_rate: float = 0.8
    scope: str = "batch"
    gradient: bool = True
    after: int = 200
    period: int = 1000
    active: int = 200
    halve_every: int = 2000

    def __post_init__(self) -> None:
        margins = {"margin_same": self.margin_same, "margin_diff": self.margin_diff}
        _numbers("divergence", weight=self.weight, decay_rate=self.decay_rate, **margins)
        check_scope(self.scope)

    @property
    def schedule(self) -> DivergenceWeightSchedule:
        """The weight as a function of the epoch."""
        return DivergenceWeightSchedule(self.weight, self.after, self.period, self.active, self.halve_every)

    def __call__(self, epoch: int) -> float:
        """Return the weight at an epoch."""
        return self.schedule(epoch)

    def loss(self, predictions: Tensor, hr: Tensor, *, epoch: int, branching: tuple[int, ...]) -> Tensor:
        """Return the loss of an epoch, a scalar; predictions are N×K×3×H×W, hr is N×3×H×W."""
        weight = self.schedule(epoch)
        if weight == 0:  # most epochs: nothing to compute
            return predictions.new_zeros(())
        loss = divergence_loss(
            predictions,
            hr,
            weight=weight,
            margin_same=self.margin_same,
            margin_diff=self.margin_diff,
            decay_rate=self.decay_rate,
            branching=branching,
            scope=self.scope,
        )
        return loss if self.gradient else loss.detach()


def _numbers(group: str, **settings: object) -> None:
    """Check that settings are numbers from 0 up: a word would only be missed deep inside of a step."""
    for name, value in settings.items():
        if not isinstance(value, int | float) or value < 0:
            raise ConfigError(f"model.{group}.{name}: must be a number from 0 up, got {value!r}.")
