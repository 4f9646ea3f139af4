"""Private names of torch that this package uses.

Those of Lightning are in ``internals.py``: inference must not import Lightning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode as DispatchMode
from torch.utils._pytree import tree_leaves

__all__ = [
    "DispatchMode",
    "abort_process_group",
    "call_eagerly",
    "default_store",
    "foreach_copy_",
    "foreach_lerp_",
    "foreach_mul_",
    "foreach_sub_",
    "tree_leaves",
]

# One kernel for all weights or gradients, where a loop over them would launch hundreds.
foreach_copy_ = torch._foreach_copy_
foreach_lerp_ = torch._foreach_lerp_
foreach_mul_ = torch._foreach_mul_
foreach_sub_ = torch._foreach_sub_


def call_eagerly(module: nn.Module, *args: Any) -> Any:
    """Call a module with its hooks, but not the version that ``module.compile()`` made of it."""
    return module._call_impl(*args)


def default_store() -> Any:
    """Return the store of the process group: it still works when collectives fail."""
    return torch.distributed.distributed_c10d._get_default_store()


def abort_process_group() -> None:
    """Close the connections of the process group at once.

    ``destroy_process_group`` closes nothing while DDP holds the group, and waits for pending NCCL operations.
    """
    torch.distributed.distributed_c10d._abort_process_group()
