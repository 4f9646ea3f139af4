"""Worker process of a data loader: prepares batches as NumPy arrays. Without torch, which takes 500 MB of memory."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from d2csr.data.dataset import without_good_items

#: The signals that stop a training, which needs batches until it has stopped. Ctrl-C in a terminal and the end of a
#: cluster job reach all processes. A worker ends when its connection closes, however the training process ends.
IGNORED = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


def main(connection: int, slots: Sequence[int]) -> None:
    """Answer requests until the connection closes.

    The first message is the pickled dataset. Each request is the number of a slot and the keys of a batch. The arrays
    of the batch are written to the slot. The answer is the names, types and shapes of the arrays, in the order of the
    slot, and the other values by name; or an error and its traceback.

    Args:
        connection: the descriptor of the connection to the training process, which has blocked :data:`IGNORED`.
        slots: descriptors of files.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    with suppress(EOFError, ConnectionError), Connection(connection) as requests:
        failure: Any = None
        dataset: Any = None
        try:
            dataset = pickle.loads(requests.recv_bytes())
        except Exception as error:  # it reaches the training with the first batch
            failure = _portable(error)
        while True:
            slot, keys = requests.recv()
            try:
                answer = failure or _write([dataset[key] for key in keys], slots[slot])
            except Exception as error:  # the training decides what it means
                answer = _portable(error)
            requests.send(answer)


def _write(items: list[dict[str, Any]], file: int) -> tuple[list[tuple[str, str, tuple[int, ...]]], dict[str, Any]]:
    items = without_good_items(items)
    arrays, others, end = [], {}, 0
    for name, first in items[0].items():
        values = [item[name] for item in items]
        if not isinstance(first, np.ndarray):
            others[name] = values
            continue
        if any((value.shape, value.dtype) != (first.shape, first.dtype) for value in values):
            raise ValueError(f"{name}: a batch needs arrays of one size, got {', '.join(str(v.shape) for v in values)}")
        for value in values:
            end = _write_array(file, value, end)
        arrays.append((name, first.dtype.str, (len(values), *first.shape)))
    return arrays, others


def _write_array(file: int, array: np.ndarray, start: int) -> int:
    """Write an array at an offset in bytes, and return its end."""
    rest = np.ascontiguousarray(array).data.cast("B")
    while rest:
        written = os.pwrite(file, rest, start)
        start, rest = start + written, rest[written:]
    return start


def _portable(error: Exception) -> tuple[Exception, str]:
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # any class of a user
        return RuntimeError(f"{type(error).__name__}: {error}"), text
    return error, text
