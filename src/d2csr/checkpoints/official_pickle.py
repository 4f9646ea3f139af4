"""An unpickler that builds plain containers and numpy arrays, and refuses everything else.

A pickle is a program: ``pickle.load`` calls whatever function it names. Official checkpoints come from a shared drive,
so nothing of theirs is called but what rebuilds an array.
"""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from d2csr.errors import CheckpointError

try:
    from numpy._core.multiarray import _reconstruct
except ImportError:  # numpy 1.x
    from numpy.core.multiarray import _reconstruct  # type: ignore[no-redef]


def _array_buffer(text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, by which old pickle protocols carry bytes; other codecs are not needed."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return codecs.latin_1_encode(text)[0]


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Stand in for numpy's function of this name, by which pickle protocol 5 (Python 3.14's own) carries arrays."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)  # type: ignore[call-overload]


# numpy moved its core in 2.0, so the same function goes by two addresses.
_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _array_buffer,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of an array") from None


def load_arrays(path: str | Path) -> Any:
    """Unpickle a file that holds containers and numpy arrays only.

    Raises:
        CheckpointError: the file cannot be read, is no pickle, or asks for anything but arrays; nothing of it has run.
    """
    try:
        with Path(path).open("rb") as file:
            return _ArrayUnpickler(file).load()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from None
    except Exception as error:  # a broken pickle may raise nearly anything
        raise CheckpointError(
            f"{path}: refused, nothing of it was run: {error or 'no pickle of arrays'}. Expected a checkpoint of this "
            "package or an official D2C-SR pickle, which holds numpy arrays alone."
        ) from None
