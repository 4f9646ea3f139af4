"""Private names of torch that this package uses.

Those of Lightning are in ``internals.py``: inference must not import Lightning.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks as _post_hooks
from torch.optim.optimizer import _global_optimizer_pre_hooks as _pre_hooks
from torch.utils._python_dispatch import TorchDispatchMode as DispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["DispatchMode", "tree_leaves"]

# One kernel for all weights or gradients, where a loop over them would launch hundreds.
foreach_copy_ = torch._foreach_copy_
foreach_lerp_ = torch._foreach_lerp_
foreach_mul_ = torch._foreach_mul_
foreach_sub_ = torch._foreach_sub_


def call_eagerly(module: nn.Module, *args: Any) -> Any:
    """Call a module with its hooks, but not the version that ``module.compile()`` made of it."""
    return module._call_impl(*args)


def skip_labels(optimizer: Optimizer) -> None:
    """Let an optimizer work without torch's labels for profilers, unless there is a profiler or a hook.

    A label takes 0.1 ms of host time.
    """
    step: Any = type(optimizer).step
    if not getattr(step, "hooked", False):
        return

    def is_observed(self: Optimizer) -> Any:
        hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks or _pre_hooks or _post_hooks
        return hooks or torch.autograd.profiler._is_profiler_enabled

    def plain_step(self: Optimizer, closure: Any = None) -> Any:
        return (step if is_observed(self) else step.__wrapped__)(self, closure)

    def plain_zero_grad(self: Optimizer, set_to_none: bool = True) -> None:
        if is_observed(self) or not set_to_none:
            type(self).zero_grad(self, set_to_none)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    optimizer.step = MethodType(plain_step, optimizer)  # type: ignore[method-assign]
    if type(optimizer).zero_grad is Optimizer.zero_grad:
        optimizer.zero_grad = MethodType(plain_zero_grad, optimizer)  # type: ignore[method-assign]


def default_store() -> Any:
    """Return the store of the process group: it still works when collectives fail."""
    return torch.distributed.distributed_c10d._get_default_store()


def abort_process_group() -> None:
    """Close the connections of the process group at once.

    ``destroy_process_group`` closes nothing while DDP holds the group, and waits for pending NCCL operations.
    """
    torch.distributed.distributed_c10d._abort_process_group()
