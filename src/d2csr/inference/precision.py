"""Precisions of inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn

from d2csr.tf32 import tf32

# The type of autocast by name; None is the model's own type.
PRECISIONS: dict[str, torch.dtype | None] = {"32": None, "tf32": None, "bf16": torch.bfloat16, "16": torch.float16}


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in ``32`` (IEEE float32 on GPUs too), ``tf32``, ``bf16`` or ``16`` on a device, within a block.

    cuDNN measures no kernels meanwhile, as it does in a training: images and strips have many sizes.
    """
    dtype = PRECISIONS[precision]
    benchmark, cudnn.benchmark = cudnn.benchmark, False
    try:
        with tf32(precision == "tf32"), torch.autocast(device.type, dtype, enabled=dtype is not None):
            yield
    finally:
        cudnn.benchmark = benchmark
