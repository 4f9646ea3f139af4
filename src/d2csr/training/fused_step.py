"""Fused optimizer steps: one kernel for all parameters, in place of several for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from d2csr.optimizers import MuonWithAdamW

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]

# Those that torch has fused kernels for, on the CPU and on CUDA; in MuonWithAdamW for AdamW's part.
_FUSED = (Adam, AdamW, MuonWithAdamW, SGD)
_DEVICES = ("cpu", "cuda")
# Settings by which a user chooses an implementation, or that exclude the fused one.
_CHOICES = frozenset({"fused", "foreach", "capturable", "differentiable"})


def with_fused_step(factory: OptimizerFactory, device: str, precision: str) -> OptimizerFactory:
    """Let a factory build its optimizer with ``fused=True``, where that is possible and the settings do not choose.

    Under ``16-mixed`` a fused optimizer would unscale the gradients itself, after gradient clipping has seen them.

    Args:
        factory: a partial of an optimizer's class; any other callable is returned as it is.
        device: the type of the parameters' device.
        precision: of the trainer.
    """
    if not isinstance(factory, partial) or factory.func not in _FUSED or device not in _DEVICES:
        return factory
    if precision == "16-mixed" or _CHOICES & factory.keywords.keys():
        return factory
    return partial(factory, fused=True)


def move_step_counts(optimizer: Optimizer) -> None:
    """Move the step counts of a loaded state to where the optimizer needs them.

    A fused optimizer needs them on the device. Any other would wait for the device at each of them.
    """
    for group in optimizer.param_groups:
        on_device = bool(group.get("fused") or group.get("capturable"))
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if isinstance(step := state.get("step"), Tensor):
                state["step"] = step.to(parameter.device if on_device else "cpu")
