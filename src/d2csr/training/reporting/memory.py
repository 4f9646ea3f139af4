"""What a training process takes."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch


def memory_in_use(device: torch.device) -> int:
    """Return bytes: the most that tensors have taken so far on a GPU; on the CPU what the process takes now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):  # not Linux: the most so far; macOS counts bytes, others kilobytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
