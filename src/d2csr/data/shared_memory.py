"""Memory that this process and its worker processes share: of batches, and of all decoded pairs."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_sources: weakref.WeakSet[RamSource] = weakref.WeakSet()


def memory_file() -> int:
    """Return the descriptor of an empty file without a name; its memory is free once no process has it open.

    On Linux it is in memory, and does not count to the limit of ``/dev/shm`` in a container. Elsewhere it is a
    temporary file.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("d2csr")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def shared_descriptors() -> list[int]:
    """Return the descriptors that a process has to inherit before it can unpickle the sources of this one."""
    return [source.descriptor for source in _sources]


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


class RamSource:
    """All pairs as uint8, in a file of :func:`memory_file`. A pickle holds its descriptor.

    Args:
        descriptor: the file, which this object closes.
        sizes: the height and width of LR and HR of each pair; or of one image that is both.
    """

    def __init__(self, descriptor: int, sizes: Sequence[Sequence[tuple[int, int]]]) -> None:
        self.descriptor = descriptor
        self._sizes = np.array(sizes, dtype=np.int64)
        self._ends = 3 * self._sizes.prod(axis=2).cumsum().reshape(self._sizes.shape[:2])
        os.ftruncate(descriptor, int(self._ends[-1, -1]))
        self._pixels = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)
        weakref.finalize(self, os.close, descriptor)
        _sources.add(self)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return LR, H×W×3, and HR, sH×sW×3; their colours lie in a plane each, which makes crops faster."""
        images = []
        for (height, width), end in zip(self._sizes[index].tolist(), self._ends[index].tolist(), strict=True):
            planes = self._pixels[end - 3 * height * width : end].reshape(3, height, width)
            images.append(planes.transpose(1, 2, 0))
        return images[0], images[-1]

    def fill(self, index: int, images: tuple[np.ndarray, np.ndarray]) -> None:
        """Store a pair."""
        lr, hr = self[index]
        hr[:] = images[1]
        if lr is not hr:
            lr[:] = images[0]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return RamSource, (self.descriptor, self._sizes)
