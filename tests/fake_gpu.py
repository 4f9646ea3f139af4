"""A CUDA device without a GPU: torch's fake tensors, which have a device, a shape and a dtype, but no values.

Operations on tensors of two devices fail as on a GPU, and the operations that make the host wait are recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Records values that are read from the GPU, and blocking copies from or to it; counts its kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name == "_local_scalar_dense" and args[0].is_cuda:
            self.seen.append("a value is read")
            return 1.0
        if name in ("nonzero", "masked_select", "is_nonzero", "equal"):
            self.seen.append(name)
        result = func(*args, **kwargs)
        if name in ("_to_copy", "to", "copy_"):
            source, target = (args[1], args[0]) if name == "copy_" else (args[0], result)
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:3] == (True,)))
            if source.device != target.device and blocking:
                self.seen.append(f"a copy from {source.device.type} to {target.device.type}")
        elif isinstance(result, Tensor) and result.is_cuda:
            self.kernels += 1
        return result


@contextmanager
def fake_gpu() -> Iterator[Waits]:
    """Create tensors for ``device="cuda"`` as fake ones within the block."""
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        yield waits


def on_fake_gpu(module: nn.Module) -> nn.Module:
    """Give a module parameters on the fake GPU, in place; only within :func:`fake_gpu`."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(torch.empty(value.shape, device="cuda"))
    return module
