"""Learning-rate schedulers of a task, which steps them itself: Lightning does not in manual optimization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from d2csr.errors import CheckpointError
from d2csr.schedules import ClosedFormScheduler

SchedulerFactory = Callable[[Optimizer], LRScheduler]


class Schedulers:
    """One scheduler for each optimizer, built by a factory; without one, the learning rate is constant.

    ``ReduceLROnPlateau`` steps after each validation, on the PSNR. All others step once an epoch or once a batch: by
    the interval, ``epoch`` or ``step``.
    """

    def __init__(self, optimizers: Sequence[Optimizer], factory: SchedulerFactory | None, interval: str) -> None:
        self.optimizers = list(optimizers)
        self.interval = interval
        self.count = 0
        self.stage = 0
        self._factory = factory
        self._keywords: set[str] = set(getattr(factory, "keywords", ()))
        self._base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.schedulers = self._build()

    def start_epoch(self, stage: int, epoch: int) -> None:
        """Set the learning rate of an epoch of a stage, both from 0. A new stage starts the schedule again."""
        if stage != self.stage:
            self.stage, self.count = stage, 0
            self.schedulers = self._build()
        if self.interval == "epoch":
            self._step(epoch - self.count)

    def end_step(self) -> None:
        """Step those that step with each batch."""
        if self.interval == "step":
            self._step(1)

    @property
    def follows_validation(self) -> bool:
        """Whether the learning rate depends on the validation PSNR."""
        return any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in self.schedulers)

    def end_validation(self, psnr: float) -> None:
        """Step those that follow the validation PSNR, in dB."""
        for scheduler in self.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(psnr)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {
            "stage": self.stage,
            "count": self.count,
            "names": [class_name(scheduler) for scheduler in self.schedulers],
            "states": [_plain_items(scheduler.state_dict()) for scheduler in self.schedulers],
            "optimizers": [class_name(optimizer) for optimizer in self.optimizers],
            "defaults": [_plain_items(optimizer.defaults) for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint, with the present settings of optimizers and schedulers.

        Lightning has loaded the states of the optimizers before. A checkpoint of an older version has only ``stage``
        and ``count``.

        Raises:
            CheckpointError: the run has another kind of optimizer.
        """
        names = [class_name(optimizer) for optimizer in self.optimizers]
        if state.get("optimizers", names) != names:
            raise CheckpointError(
                f"resume: the checkpoint holds the state of {state['optimizers'][0]}, not of {names[0]}. Set "
                "model.optimizer._target_ as in that run, or use init_from=… for its weights."
            )
        defaults = state.get("defaults") or [{}] * len(names)
        for optimizer, before in zip(self.optimizers, defaults, strict=True):
            now = optimizer.defaults.items()
            changed = {name: value for name, value in now if name != "lr" and before.get(name, ...) != value}
            for group in optimizer.param_groups:
                group.update(changed)
        self.stage, self.count = state["stage"], state["count"]
        if not self.schedulers or state.get("names") != [class_name(scheduler) for scheduler in self.schedulers]:
            self.schedulers, self.count = self._build(), 0
            self._step(state["count"])
            return
        for index, saved in enumerate(state["states"]):
            self._load(index, saved, defaults[index].get("lr"))

    def _load(self, index: int, saved: dict[str, Any], former_rate: float | None) -> None:
        """Load the state of one scheduler, and scale its learning rate if the base rate has changed."""
        scheduler, groups = self.schedulers[index], self.optimizers[index].param_groups
        for group, base in zip(groups, self._base_rates[index], strict=True):
            group["initial_lr"] = base
            if former_rate and former_rate != base:
                group["lr"] *= base / former_rate
        kept = {key: value for key, value in saved.items() if key not in self._keywords | {"base_lrs"}}
        if not isinstance(scheduler, ClosedFormScheduler):
            kept["_last_lr"] = [group["lr"] for group in groups]
        scheduler.load_state_dict(kept)

    def _build(self) -> list[LRScheduler]:
        for optimizer, rates in zip(self.optimizers, self._base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = group["initial_lr"] = rate
        return [self._factory(optimizer) for optimizer in self.optimizers] if self._factory is not None else []

    def _step(self, times: int) -> None:
        for _ in range(times):
            self.count += 1
            for scheduler in self.schedulers:
                if not isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step()


def class_name(instance: object) -> str:
    """Return the name of an object's class with its module."""
    return f"{type(instance).__module__}.{type(instance).__qualname__}"


def _plain_items(state: dict[str, Any]) -> dict[str, Any]:
    """Return the items that ``torch.load(weights_only=True)`` can read."""
    return {key: value for key, value in state.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):  # a named tuple cannot be read
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, bool | int | float | str)
