"""Clock, memory and arithmetic peak of the machine, for the benchmarks."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_MB = 1e6


class Reading:
    """Measured time and memory of a block of code; filled in at its end.

    Attributes:
        seconds: wall-clock time.
        peak: MB above the memory at its start; None if the system cannot measure it.
    """

    seconds: float = 0.0
    peak: float | None = None


@contextmanager
def clock(device: torch.device) -> Iterator[Reading]:
    """Time a block, including its kernels on the device."""
    reading = Reading()
    _finish(device)
    start = time.perf_counter()
    yield reading
    _finish(device)
    reading.seconds = time.perf_counter() - start


@contextmanager
def memory(device: torch.device) -> Iterator[Reading]:
    """Measure the peak memory of a block: of the device, or on a CPU the resident memory of the process."""
    reading = Reading()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield reading
        reading.peak = (torch.cuda.max_memory_allocated(device) - before) / _MB
        return
    if not sys.platform.startswith("linux"):
        yield reading
        return
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # otherwise the block could reuse freed memory unnoticed
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present memory
    before = _resident("VmRSS")
    yield reading
    reading.peak = _resident("VmHWM") - before


def matmul_flops(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Return the floating-point operations a second of one large matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    with clock(device) as reading:
        for _ in range(3):
            a @ b
    return 3 * 2 * size**3 / reading.seconds


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024 / _MB


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
