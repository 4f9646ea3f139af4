"""Workers of a data loader: their start, and their batches through shared memory that is allocated once."""

from __future__ import annotations

import itertools
import mmap
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from d2csr.errors import DataError

# A worker passes its batches on through a socket in the temporary folder: /pymp-12345678/listener-12345678. The path of
# a socket has at most 107 bytes on Linux and 103 on macOS. With a longer one a thread of the worker fails, and the main
# process waits for the batch without an end.
_MOST_BYTES = 103 - 32
_SHORT_FOLDERS = "/tmp", "/var/tmp", "/dev/shm"

# The rings of this process, by the number that worker processes, which are forked from it, send back.
_rings: WeakValueDictionary[int, BatchRing] = WeakValueDictionary()
_numbers = itertools.count()

_Item = dict[str, Any]


def start_worker(worker: int = 0) -> None:
    """Ignore the signals that stop a training, and use a short temporary folder.

    Raises:
        DataError: the path of the temporary folder is too long, and there is no other.
    """
    ignore_signals()
    if len(os.fsencode(tempfile.gettempdir())) <= _MOST_BYTES:
        return
    writable = [folder for folder in _SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK)]
    if not writable:
        raise DataError(
            f"TMPDIR={tempfile.gettempdir()}: the processes that prepare batches need a temporary folder of at most "
            f"{_MOST_BYTES} bytes. Set TMPDIR to a shorter one, or data.num_workers=0."
        )
    tempfile.tempdir = writable[0]


def ignore_signals() -> None:
    """Ignore the signals that stop a training, which needs batches until it has stopped.

    Ctrl-C in a terminal and the end of a cluster job reach all processes. The second SIGTERM ends the worker, since
    Python ends remaining workers by SIGTERM. A worker whose training process is gone ends by itself.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ignore_once)


def _ignore_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, lambda *_: os._exit(0))


class BatchRing:
    """Collate function for a DataLoader whose workers are forked: images of known shapes pass through shared memory.

    torch allocates shared memory for each tensor of each batch and passes its file descriptor through a socket, which
    takes longer than preparing the batch (``benchmarks/data.py``).

    Each worker has a few slots, a batch each. It writes a batch into a free slot; the receiving process copies the
    batch to memory of its own, and frees the slot. If no slot is free, or a batch has another shape, it passes as torch
    passes it. The shared memory is anonymous: it does not count to the limit of ``/dev/shm`` in a container.

    Args:
        shapes: the shape of a batch of each tensor, uint8; batches may be smaller.
        num_workers: the workers of the loader.
        collate: makes a batch of items that do not pass through a slot.
        slots: of each worker: the batches that a worker prepares ahead.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        num_workers: int,
        collate: Callable[[list[_Item]], Any] = default_collate,
        slots: int = 2,
    ) -> None:
        self.collate = collate
        self._slots = {name: _shared(num_workers, slots, *shape) for name, shape in shapes.items()}
        self._full = _shared(num_workers, slots).numpy()  # 1: written, and not yet received
        self._number = next(_numbers)
        _rings[self._number] = self

    def __call__(self, items: list[_Item]) -> Any:
        """Return a batch, or in a worker its place in the ring."""
        worker = get_worker_info()
        if worker is None or not self._fits(items):
            return self.collate(items)
        free = (self._full[worker.id] == 0).nonzero()[0]
        if not len(free):
            return self.collate(items)
        slot = int(free[0])
        self._full[worker.id, slot] = 1
        for name, images in self._slots.items():
            torch.stack([item[name] for item in items], out=images[worker.id, slot, : len(items)])
        others = [{name: value for name, value in item.items() if name not in self._slots} for item in items]
        return _Place((self._number, worker.id, slot, others))

    def receive(self, worker: int, slot: int, others: list[_Item]) -> _Item:
        """Return a copy of a batch, and free its slot."""
        batch = {name: images[worker, slot, : len(others)].clone() for name, images in self._slots.items()}
        self._full[worker, slot] = 0
        return {**batch, **default_collate(others)}

    def _fits(self, items: list[_Item]) -> bool:
        return all(
            name in item and item[name].shape == images.shape[3:] and len(items) <= images.shape[2]
            for item in items
            for name, images in self._slots.items()
        ) and not any("error" in item for item in items)


@dataclass(frozen=True)
class _Place:
    """Slot of a batch, which the process that unpickles it replaces by the batch."""

    place: tuple[int, int, int, list[_Item]]  # the arguments of _receive

    def __reduce__(self) -> tuple[Callable[..., _Item], tuple[Any, ...]]:
        return _receive, self.place


def _receive(ring: int, worker: int, slot: int, others: list[_Item]) -> _Item:
    return _rings[ring].receive(worker, slot, others)


def _shared(*shape: int) -> Tensor:
    """Return zeros in memory that this process and its later children share, uint8."""
    return torch.frombuffer(mmap.mmap(-1, torch.Size(shape).numel()), dtype=torch.uint8).view(shape)
