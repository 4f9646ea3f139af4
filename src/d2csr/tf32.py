"""TF32 in convolutions and products of float32 on NVIDIA GPUs: 10 bits of mantissa instead of 23, and more speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.backends import cuda, cudnn


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow TF32, or compute in IEEE float32, within a block; then restore the former settings.

    The settings hold for the whole process. They have no effect on a CPU, or on GPUs before NVIDIA's Ampere.
    """
    restore = set_tf32(allowed)
    try:
        yield
    finally:
        restore()


def set_tf32(allowed: bool) -> Callable[[], None]:
    """Allow TF32, or compute in IEEE float32, and return a function that restores the former settings."""
    try:
        former: tuple[bool, str] = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # the program has set the newer flags, after which torch refuses to read these
        newer = cudnn.conv.fp32_precision, cuda.matmul.fp32_precision  # type: ignore[attr-defined]  # torch adds it at run time
        _set_newer(*2 * ["tf32" if allowed else "ieee"])
        return partial(_set_newer, *newer)
    # Lightning and the compiler still read these, which torch refuses once the newer flags are set.
    _set(allowed, "high" if allowed else "highest")
    return partial(_set, *former)


def _set(convolutions: bool, products: str) -> None:
    cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)


def _set_newer(convolutions: str, products: str) -> None:
    cudnn.conv.fp32_precision, cuda.matmul.fp32_precision = convolutions, products  # type: ignore[attr-defined]
