"""Memory that this process and its worker processes share."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np


def memory_file() -> int:
    """Return the descriptor of an empty file without a name; its memory is free once no process has it open.

    On Linux it is in memory, and does not count to the limit of ``/dev/shm`` in a container. Elsewhere it is a
    temporary file.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("d2csr")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Slot:
    """File of :func:`memory_file` through which batches pass, one at a time. It grows to the largest one."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._content = np.empty(0, np.uint8)

    def content(self, count: int) -> np.ndarray:
        """Map the first bytes, read and write."""
        if count > self._content.size:
            if count > os.fstat(self.descriptor).st_size:
                os.ftruncate(self.descriptor, count)
            self._content = np.frombuffer(mmap.mmap(self.descriptor, count), np.uint8)
        return self._content[:count]
