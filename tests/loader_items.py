"""Datasets for tests of loader workers. Without torch, which their workers must not import."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from d2csr.errors import DataError


class Noise:
    """Images of noise and what a worker says of itself; some items fail, are larger, or kill their worker."""

    def __init__(self, length=24, size=4, **special):
        self.length = length
        self.size = size
        self.special = special

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index == self.special.get("broken"):
            raise DataError(f"item {index} is broken")
        if index == self.special.get("defect"):
            raise KeyError("no such name")
        if index == self.special.get("killed"):
            os.kill(os.getpid(), self.special.get("signal", signal.SIGKILL))
        if index == self.special.get("slow"):
            time.sleep(1)
        size = self.size * (2 if index == self.special.get("larger") else 1)
        random = np.random.default_rng(index)
        images = {name: random.integers(0, 256, (3, side, side), np.uint8) for name, side in (("lr", size), ("hr", 99))}
        return {**images, "index": index}


class Own:
    """Says which modules a worker has imported, and its process number."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        threads = len(list(Path("/proc/self/task").iterdir()))
        return {"torch": str("torch" in sys.modules), "pid": os.getpid(), "threads": threads}


class Ram:
    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        for image in self.source[index]:
            image += 7
        return {"pid": os.getpid()}
