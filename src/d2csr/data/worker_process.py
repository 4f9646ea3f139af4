"""Worker process of a data loader: prepares batches as NumPy arrays. Without torch, which takes 500 MB of memory."""

from __future__ import annotations

import pickle
import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from d2csr.data.dataset import without_good_items
from d2csr.data.shared_memory import Slot

#: The signals that stop a training, which needs batches until it has stopped. Ctrl-C in a terminal and the end of a
#: cluster job reach all processes. A worker ends when its connection closes, however the training process ends.
IGNORED = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


def main(connection: int, descriptors: Sequence[int]) -> None:
    """Answer requests until the connection closes.

    The first message is the pickled dataset. Each request is the number of a slot and the keys of a batch. The arrays
    of the batch are written to the slot. The answer is the names, types and shapes of the arrays, in the order of the
    slot, and the other values by name; or an error and its traceback.

    Args:
        connection: the descriptor of the connection to the training process, which has blocked :data:`IGNORED`.
        descriptors: of the slots.
    """
    slots = [Slot(descriptor) for descriptor in descriptors]
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


def _write(items: list[dict[str, Any]], slot: Slot) -> tuple[list[tuple[str, str, tuple[int, ...]]], dict[str, Any]]:
    items = without_good_items(items)
    batch = {name: [item[name] for item in items] for name in items[0]}
    arrays = {name: values for name, values in batch.items() if isinstance(values[0], np.ndarray)}
    for name, values in arrays.items():
        if any((value.shape, value.dtype) != (values[0].shape, values[0].dtype) for value in values):
            raise ValueError(f"{name}: a batch needs arrays of one size, got {', '.join(str(v.shape) for v in values)}")
    content, end = slot.content(sum(value.nbytes for values in arrays.values() for value in values)), 0
    for values in arrays.values():
        start, end = end, end + len(values) * values[0].nbytes
        np.stack(values, out=content[start:end].view(values[0].dtype).reshape(len(values), *values[0].shape))
    headers = [(name, values[0].dtype.str, (len(values), *values[0].shape)) for name, values in arrays.items()]
    return headers, {name: values for name, values in batch.items() if name not in arrays}


def _portable(error: Exception) -> tuple[Exception, str]:
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # any class of a user
        return RuntimeError(f"{type(error).__name__}: {error}"), text
    return error, text
