"""Precision of computation: autocast in inference, and TF32, float32 with 10 bits of mantissa instead of 23."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.backends import cuda, cudnn

# The type of autocast by the value of ``inference.precision``; None is the model's own type.
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


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow TF32 in convolutions and products on NVIDIA GPUs, or compute in IEEE float32, within a block.

    The settings hold for the whole process. They have no effect on a CPU, or on GPUs before NVIDIA's Ampere.
    """
    write: Callable[[Any, str], None]
    former: tuple[Any, str]
    present: tuple[Any, str]
    try:  # Lightning and the compiler still read these, which torch refuses once the newer flags are set
        former = cudnn.allow_tf32, torch.get_float32_matmul_precision()
        write, present = _set, (allowed, "high" if allowed else "highest")
    except RuntimeError:  # the program has set the newer flags
        former = cudnn.conv.fp32_precision, cuda.matmul.fp32_precision  # type: ignore[attr-defined]  # torch adds it at run time
        write, present = _set_newer, ("tf32", "tf32") if allowed else ("ieee", "ieee")
    write(*present)
    try:
        yield
    finally:
        write(*former)


def _set(convolutions: bool, products: str) -> None:
    cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)


def _set_newer(convolutions: str, products: str) -> None:
    cudnn.conv.fp32_precision, cuda.matmul.fp32_precision = convolutions, products  # type: ignore[attr-defined]
