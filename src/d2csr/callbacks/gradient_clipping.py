"""Gradient clipping in every mode of optimization."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from d2csr.checks import number, one_of
from d2csr.models import SRNetwork


class GradientClipping(Callback):
    """Clips the gradients of each of the two networks separately, or of another task as a whole, before a step.

    Lightning's own clipping refuses manual optimization, and uses one norm over both networks if they share an
    optimizer. Gradients are averaged over ranks and accumulated batches, and unscaled under ``16-mixed``.

    The value is the largest norm of a network's gradient (``norm``), or the largest absolute value in it (``value``); 0
    does not clip.
    """

    def __init__(self, gradient_clip_val: float, gradient_clip_algorithm: str) -> None:
        self.value = number("gradient_clip_val", gradient_clip_val, least=0)
        self.algorithm = one_of("gradient_clip_algorithm", gradient_clip_algorithm, ("norm", "value"))
        self._convergence: frozenset[nn.Parameter] = frozenset()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """List the parameters of the convergence network once: this takes longer than their clipping."""
        network = getattr(pl_module, "network", None)
        own = network.convergence.parameters() if isinstance(network, SRNetwork) else ()
        self._convergence = frozenset(own)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Clip the gradients of the optimizer's parameters."""
        if not self.value:
            return
        clip = clip_grad_norm_ if self.algorithm == "norm" else clip_grad_value_
        stepped = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        convergence = [p for p in stepped if p in self._convergence]
        divergence = [p for p in stepped if p not in self._convergence] if convergence else stepped
        for parameters in filter(None, (divergence, convergence)):
            clip(parameters, self.value)
