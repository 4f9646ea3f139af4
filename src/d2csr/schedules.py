"""What changes from epoch to epoch: the learning rate and the weight of the divergence loss.

Both are functions of the epoch alone, so a resumed run needs no state for them. An epoch is one random patch from every
pair, and the defaults are the official code's.
"""

from __future__ import annotations

from dataclasses import dataclass

from d2csr.errors import ConfigError


@dataclass(frozen=True)
class LearningRateSchedule:
    """initial × ½^⌊epoch / halve_every⌋.

    Attributes:
        initial: the rate of the first epoch.
        halve_every: epochs until it is halved again.
    """

    initial: float = 1e-4
    halve_every: int = 2000

    def __post_init__(self) -> None:
        _positive("optimizer.halve_every", self.halve_every)

    def __call__(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.initial * 0.5 ** (epoch // self.halve_every)


@dataclass(frozen=True)
class DivergenceWeightSchedule:
    """The divergence loss works in windows: the first epochs of each period, and not before a first stretch is over.

    weight × ½^⌊epoch / halve_every⌋ where epoch > after and epoch mod period < active; 0 elsewhere.

    Attributes:
        weight: the weight before it is first halved.
        after: the last epoch of the stretch without divergence loss; −1 has none.
        period: epochs from one window to the next.
        active: epochs in a window.
        halve_every: epochs until the weight is halved again.
    """

    weight: float = 2e-5
    after: int = 200
    period: int = 1000
    active: int = 200
    halve_every: int = 2000

    def __post_init__(self) -> None:
        _positive("divergence.period", self.period)
        _positive("divergence.halve_every", self.halve_every)

    def __call__(self, epoch: int) -> float:
        """Return the weight of the divergence loss in an epoch, counted from 0."""
        if epoch <= self.after or epoch % self.period >= self.active:
            return 0.0
        return self.weight * 0.5 ** (epoch // self.halve_every)


def _positive(name: str, epochs: int) -> None:
    if not isinstance(epochs, int) or epochs < 1:
        raise ConfigError(f"model.{name}: must be a positive whole number of epochs, got {epochs!r}.")
