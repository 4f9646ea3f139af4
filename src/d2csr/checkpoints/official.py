"""Official checkpoints: their pickled arrays, and how these map to :class:`d2csr.models.D2CSR`.

They are pickles of ``{"state_dict_D": {...}, "state_dict_C": {...}}``
(https://github.com/megvii-research/D2C-SR). Values are float32 arrays, convolution biases have shape 1×C×1×1, and
channels are in the order BGR. The shifts ``sub_mean`` and ``add_mean`` are learned, so their values are kept.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2csr.checkpoints.inferred_settings import network_settings
from d2csr.checkpoints.pickle_reader import Name, PickleError, Record, make_records, read_pickle
from d2csr.errors import CheckpointError
from d2csr.models import Tree

MAX_FILE = 64 * 2**20  # bytes; the largest published network has 26 MB, and text can take four times its bytes
MAX_OPCODES = 200_000  # the largest published network has about 12,000
MAX_DIMENSIONS = 8

# Two skips a leaf, numbered consecutively: leaf 11 has res_conv1 and res_conv2, leaf 12 has res_conv3 and res_conv4 ...
_SKIPS = {2 * i + j + 1: f"{leaf}.{j}" for i, leaf in enumerate(Tree().leaves) for j in range(2)}
_RENAMINGS = (
    (r"^sub_mean\.", "divergence.input_shift."),
    (r"^add_mean\.", "divergence.output_shift."),
    (r"^head\.0\.", "divergence.head."),
    (r"^body(\d+)\.", r"divergence.bodies.\1."),
    (r"^tail(\d+)\.", r"divergence.tails.\1."),
    (r"^res_conv(\d+)\.", lambda match: f"divergence.skips.{_SKIPS[int(match[1])]}."),
    (r"^fusion_final\.(\d)\.conv\.", r"convergence.layers.\1."),
    (r"\.body\.", ".residual."),
    (r"\.conv_du\.0\.", ".attention.1."),
    (r"\.conv_du\.2\.", ".attention.3."),
)


class _DType(Record):
    """Type of an array: 2, 4 or 8 bytes of floating point in either byte order."""

    def __init__(self, code: Any, align: Any, copy: Any) -> None:
        if code not in ("f2", "f4", "f8"):
            raise PickleError("an array of a type other than f2, f4 and f8")
        self.code = code
        self.order = "<"

    def build(self, state: Any) -> None:
        match state:
            case (3, "<" | ">" as order, None, None, None, -1, -1, 0):
                self.order = order
            case _:
                raise PickleError("the state of a dtype is not that of a plain number")


class _Array(Record):
    """Array: type, shape and content as the pickle states them, checked when it is made."""

    def __init__(self, content: Any = b"", dtype: Any = None, shape: Any = (), order: Any = "C") -> None:
        self.content, self.dtype, self.shape, self.order = content, dtype, shape, order

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1:
            raise PickleError("the state of an array is malformed")
        _, self.shape, self.dtype, fortran, self.content = state
        self.order = "F" if fortran is True else "C"

    def make(self) -> np.ndarray:
        """Check type, shape and size, and return the array over the bytes of the pickle, without a copy."""
        shape, dtype = self.shape, self.dtype
        if not isinstance(dtype, _DType) or not isinstance(self.content, bytes) or self.order not in ("C", "F"):
            raise PickleError("an array without a type or content")
        is_shape = isinstance(shape, tuple) and len(shape) <= MAX_DIMENSIONS
        if not is_shape or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
            raise PickleError("an array with an impossible shape")
        if math.prod(shape) * int(dtype.code[1]) != len(self.content):
            raise PickleError(f"an array of shape {shape} and type {dtype.code} with {len(self.content)} bytes")
        array = np.frombuffer(self.content, dtype=dtype.order + dtype.code)
        return array.reshape(shape, order=self.order)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind != Name("numpy", "ndarray"):
        raise PickleError("it reconstructs something that is not an array")
    return _Array()


# numpy moved its core in 2.0, so the same function has two addresses.
_NAMES = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _Array,
    ("numpy._core.numeric", "_frombuffer"): _Array,
}


def load_arrays(path: str | Path) -> Any:
    """Return the content of a pickle of containers, plain values and numpy arrays; runs nothing in the file.

    Raises:
        CheckpointError: the file cannot be read, or holds anything else.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise PickleError(f"more than {MAX_FILE // 2**20} MiB")
        content = read_pickle(data, _NAMES, max_opcodes=MAX_OPCODES)
        left = [len(data)]  # bytes that arrays may still have
        return make_records(content, lambda record: _array(record, left))
    except (OSError, PickleError, ValueError) as error:
        raise CheckpointError(
            f"{path}: refused, nothing of it was run: {error}. Expected a checkpoint of this package or an official "
            "D2C-SR pickle, which holds numpy arrays alone."
        ) from None


def _array(record: Record | Name, left: list[int]) -> np.ndarray:
    if not isinstance(record, _Array):
        raise PickleError("a type or function outside an array")
    array = record.make()
    left[0] -= array.nbytes
    if left[0] < 0:
        raise PickleError("arrays that amount to more bytes than the file has")
    return array


def read_official(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read an official pickle.

    Returns:
        The settings of its model, deduced from the weights, and the model's state dict, in RGB order.

    Raises:
        CheckpointError: the file holds anything but the arrays of an official checkpoint.
    """
    arrays = _named_arrays(path)
    try:
        weights = {_rename(name): _tensor(name, array) for name, array in arrays}
        if len(weights) < len(arrays):
            raise ValueError("two arrays have the same name")
        _to_rgb(weights)
        return network_settings(weights), weights
    except (KeyError, ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not the weights of an official D2C-SR network ({type(error).__name__}: {str(error)[:200]})."
        ) from None


def _named_arrays(path: str | Path) -> list[tuple[str, np.ndarray]]:
    match load_arrays(path):
        case {"state_dict_D": dict(divergence), "state_dict_C": dict(convergence)}:
            arrays = [*divergence.items(), *convergence.items()]
            if all(isinstance(name, str) and isinstance(array, np.ndarray) for name, array in arrays):
                return arrays
    raise CheckpointError(f"{path}: not an official D2C-SR checkpoint: it lacks state_dict_D and state_dict_C.")


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMINGS:
        name = re.sub(pattern, replacement, name)
    return name


def _tensor(name: str, array: np.ndarray) -> Tensor:
    if name.endswith(".bias"):
        array = array.reshape(-1)
    return torch.from_numpy(array.astype(np.float32))


def _to_rgb(weights: dict[str, Tensor]) -> None:
    """Reverse the image channels in place: the result on RGB is the official result on BGR."""
    weights["divergence.input_shift.weight"] = weights["divergence.input_shift.weight"].flip(1)
    for kind in ("weight", "bias"):
        weights[f"divergence.output_shift.{kind}"] = weights[f"divergence.output_shift.{kind}"].flip(0)
    first = weights["convergence.layers.0.weight"]
    weights["convergence.layers.0.weight"] = first.unflatten(1, (-1, 3)).flip(2).flatten(1, 2)
