"""Data loader whose worker processes do not import torch."""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, cycle, islice
from multiprocessing import Pipe
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from d2csr.data.cache import shared_descriptors
from d2csr.data.shared_memory import Slot, memory_file
from d2csr.data.worker_process import IGNORED
from d2csr.errors import UserError

AHEAD = 2  # batches that a worker prepares ahead
_LAST_SECONDS = 10  # after which a worker is killed that does not end
# Of a worker. glibc returns the memory of each patch to the system, unless both limits are raised: the page faults for
# its next use take a quarter of a worker's time. 32 MiB are the most that it accepts.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
}


class WorkerLoader(DataLoader[Any]):
    """DataLoader with ``num_workers`` fresh Python processes, which prepare items as dicts of NumPy arrays.

    Its dataset is pickled. Its workers remain between epochs. A batch holds a tensor for each array, in pinned memory
    if ``pin_memory`` is set, and for other values what ``default_collate`` makes of them. A new iteration ends the
    former one.

    Raises:
        RuntimeError: a worker was killed; or, from a former iteration, there is a new one.
        Exception: an error of the dataset, with its class and message.
    """

    _iterator: Any  # Lightning sets it to None when it needs the workers no more

    def __iter__(self) -> Any:
        if self.num_workers == 0:
            return super().__iter__()
        if self._iterator is None:
            self._iterator = _Pool(self.dataset, self.num_workers)
        return self._iterator.batches(self.batch_sampler, self.pin_memory)

    def worker_pids(self) -> list[int]:
        """Return the process numbers of the workers, once they have started."""
        return [worker.process.pid for worker in self._iterator.workers] if self._iterator else []


class _Pool:
    """Workers that prepare the batches of an iteration in turns."""

    def __init__(self, dataset: Any, num_workers: int) -> None:
        content = pickle.dumps(dataset, pickle.HIGHEST_PROTOCOL)
        self.workers: list[_Worker] = []
        weakref.finalize(self, _end, self.workers)  # also at the end of Python
        self.workers += (_Worker() for _ in range(num_workers))
        for worker in self.workers:
            worker.send_bytes(content)
        self._iteration: object = None

    def batches(self, batches: Iterable[Any], pin: bool) -> Iterator[dict[str, Any]]:
        """Request the first batches, and return all in their order."""
        iteration = self._iteration = object()
        for worker in self.workers:
            worker.discard()
        turns: deque[_Worker] = deque()
        requests = zip(cycle(self.workers), batches, strict=False)

        def request(count: int) -> None:
            for worker, keys in islice(requests, count):
                worker.request(keys)
                turns.append(worker)

        def received() -> Iterator[dict[str, Any]]:
            while turns:
                if self._iteration is not iteration:
                    raise RuntimeError("a newer iteration of this loader has begun")
                batch = turns.popleft().receive(pin)
                request(1)
                yield batch

        request(AHEAD * len(self.workers))
        return received()


class _Worker:
    """A process, the connection to it, and the files through which arrays pass."""

    def __init__(self) -> None:
        descriptors = [memory_file() for _ in range(AHEAD)]
        weakref.finalize(self, _close, descriptors)
        self._slots = [Slot(descriptor) for descriptor in descriptors]
        self._requested = self._received = 0
        self.connection, other = Pipe()
        main = f"main({other.fileno()}, {descriptors})"
        code = f"import sys; sys.path[:] = {sys.path}; from d2csr.data.worker_process import main; {main}"
        former = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)  # until the worker ignores them
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=(other.fileno(), *descriptors, *shared_descriptors()),
                env={**os.environ, **_ENVIRONMENT},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
            other.close()

    def send_bytes(self, content: bytes) -> None:
        try:
            self.connection.send_bytes(content)
        except OSError:
            raise self._lost() from None

    def request(self, keys: Any) -> None:
        try:
            self.connection.send((self._requested % AHEAD, keys))
        except OSError:
            raise self._lost() from None
        self._requested += 1

    def receive(self, pin: bool) -> dict[str, Any]:
        """Return the batch that was requested first."""
        slot = self._slots[self._received % AHEAD]
        first, second = self._answer()
        if isinstance(first, Exception):
            raise first from (None if isinstance(first, UserError) else RuntimeError(f"in a worker process:\n{second}"))
        ends = list(accumulate(math.prod(shape) * np.dtype(dtype).itemsize for _, dtype, shape in first))
        content, batch = slot.content(ends[-1] if ends else 0), {}
        for (name, dtype, shape), start, end in zip(first, [0, *ends], ends, strict=False):
            batch[name] = _read(content[start:end].view(dtype), shape, pin)
        return {**batch, **{name: default_collate(values) for name, values in second.items()}}

    def discard(self) -> None:
        """Wait for the batches of a former iteration."""
        while self._received < self._requested:
            self._answer()

    def _answer(self) -> Any:
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise self._lost() from None
        self._received += 1
        return answer

    def _lost(self) -> RuntimeError:
        """Return the error for a worker whose connection is closed."""
        status = _status(self.process)
        if status < 0:
            return RuntimeError(f"DataLoader worker (pid {self.process.pid}) is killed by signal: {-status}")
        return RuntimeError(
            f"a worker process of the data loader (pid {self.process.pid}) ended with status {status}; its message is "
            "in the standard error output above"
        )


def _read(content: np.ndarray, shape: Sequence[int], pin: bool) -> Tensor:
    tensor = torch.empty(tuple(shape), dtype=torch.from_numpy(content).dtype, pin_memory=pin)
    tensor.numpy()[...] = content.reshape(shape)
    return tensor


def _status(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process whose connection is closed, and return its exit status."""
    try:
        return process.wait(_LAST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        _status(worker.process)


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
