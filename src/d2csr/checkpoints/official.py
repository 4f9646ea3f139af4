"""Official checkpoints: their pickled arrays, and how these map to :class:`d2csr.models.D2CSR`.

They are pickles of ``{"state_dict_D": {...}, "state_dict_C": {...}}``
(https://github.com/megvii-research/D2C-SR). Values are float32 arrays, convolution biases have shape 1×C×1×1, and
channels are in the order BGR. The shifts ``sub_mean`` and ``add_mean`` are learned, so their values are kept.
"""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2csr.checkpoints.inferred_settings import network_settings
from d2csr.checkpoints.pickle_reader import Name, PickleError, Record, make_records, read_pickle
from d2csr.errors import CheckpointError, one_line
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


class _Call(Record):
    """A call that is not made: the function, its arguments, and the state that the pickle gives to its result."""

    __match_args__ = ("function", "arguments", "state")

    def __init__(self, function: str, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments
        self.state: Any = None

    def build(self, state: Any) -> None:
        self.state = state


_NAMES = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): partial(_Call, "dtype"),
    # numpy moved its core in 2.0, so the same function has two addresses.
    ("numpy.core.multiarray", "_reconstruct"): partial(_Call, "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): partial(_Call, "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"): partial(_Call, "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"): partial(_Call, "_frombuffer"),
}


def load_arrays(path: str | Path) -> Any:
    """Return the plain values and arrays in a pickle, without running it; raise a CheckpointError for other content."""
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
    """Return an array over the bytes of the pickle, without a copy, after checks of type, shape and size."""
    match record:
        case _Call("_reconstruct", (Name("numpy", "ndarray"), _, _), (1, tuple(shape), dtype, fortran, bytes(content))):
            pass
        case _Call("_frombuffer", (bytes(content), dtype, tuple(shape), "C" | "F" as order), None):
            fortran = order == "F"
        case _:
            raise PickleError("a malformed array, or a type or function outside an array")
    match dtype:
        case _Call("dtype", ("f2" | "f4" | "f8" as code, _, _), (3, "<" | ">" as endian, None, None, None, -1, -1, 0)):
            pass
        case _:
            raise PickleError("an array of a type other than f2, f4 and f8")
    if len(shape) > MAX_DIMENSIONS or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise PickleError("an array with an impossible shape")
    if math.prod(shape) * int(code[1]) != len(content):
        raise PickleError(f"an array of shape {shape} and type {code} with {len(content)} bytes")
    left[0] -= len(content)
    if left[0] < 0:
        raise PickleError("arrays that amount to more bytes than the file has")
    return np.frombuffer(content, dtype=endian + code).reshape(shape, order="F" if fortran is True else "C")


def read_official(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return settings, deduced from the weights, and state dict, in RGB order, or raise a CheckpointError."""
    content = load_arrays(path)
    try:
        arrays = [*content["state_dict_D"].items(), *content["state_dict_C"].items()]
        weights = {_rename(name): _tensor(name, array) for name, array in arrays}
        if len(weights) < len(arrays):
            raise ValueError("two arrays have the same name")
        _to_rgb(weights)
        return network_settings(weights), weights
    except (LookupError, ValueError, TypeError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not an official D2C-SR checkpoint, with the arrays of its network in state_dict_D and "
            f"state_dict_C ({type(error).__name__}: {one_line(error)})."
        ) from None


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
