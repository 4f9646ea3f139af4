"""Gradient clipping that works in every mode of optimization."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from d2csr.errors import ConfigError

ALGORITHMS = ("norm", "value")


class GradientClipping(Callback):
    """Clips the gradients before a step of an optimizer, those of each of the two networks by itself.

    Lightning's own clipping refuses optimizers that a task steps itself, and would take one norm over both networks
    where one optimizer has them. It works on gradients as they are: averaged over the processes and the accumulated
    batches, and unscaled with ``trainer.precision=16-mixed``.

    Args:
        value: the largest norm of a network's gradient, or the largest absolute value in it.
        algorithm: ``norm`` or ``value``.

    Raises:
        ConfigError: a setting has an impossible value.
    """

    def __init__(self, value: float, algorithm: str = "norm") -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ConfigError(f"trainer.gradient_clip_val: must be a number from 0 up or null, got {value!r}.")
        if algorithm not in ALGORITHMS:
            raise ConfigError(f"trainer.gradient_clip_algorithm: must be {' or '.join(ALGORITHMS)}, got {algorithm!r}.")
        self.value = value
        self.algorithm = algorithm

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Clip what the optimizer is about to use."""
        if not self.value:  # 0 turns it off, as in Lightning
            return
        stepped = {p for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        for network in (pl_module.network.divergence, pl_module.network.convergence):
            parameters = [p for p in network.parameters() if p in stepped]
            if not parameters:  # not this one's step
                continue
            if self.algorithm == "norm":
                clip_grad_norm_(parameters, self.value)
            else:
                clip_grad_value_(parameters, self.value)
