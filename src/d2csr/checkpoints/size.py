"""Size of the network that a checkpoint describes, compared with its weights before the network is built."""

from __future__ import annotations

import inspect
import math
import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from d2csr.checks import shown, whole_number
from d2csr.errors import ConfigError, shown_name
from d2csr.models import build_network
from d2csr.models.architectures import architecture_of
from d2csr.models.bodies import BODIES, complete_settings

MAX_LEVELS = 8  # of the tree; the paper's has 2
MODULES_PER_TENSOR = 10  # the paper's network has about 1
MAX_BUFFERS = 2**28  # bytes that are in no checkpoint; the tables of "swin" have 85 MB at three times SwinIR's depth


def check_size(settings: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Check that a network of these settings has no more parameters than there are weights.

    The network is built on the meta device, and no further than the number of tensors in the checkpoint allows.

    Raises:
        ConfigError: it has more parameters, or a setting is impossible, unknown or missing.
    """
    _check_names(settings)
    _check_branching(settings.get("branching", []), len(weights))
    available = sum(value.numel() for value in weights.values())
    try:
        with bounded_construction(len(weights), available), torch.device("meta"):
            build_network(settings)
    except (RuntimeError, OverflowError, TypeError) as error:
        kind = BODIES[complete_settings(settings.get("body", "rcab"))["name"]]
        if kind.__module__.startswith("d2csr."):
            raise ConfigError(f"a size is impossible ({str(error).partition(chr(10))[0][:200]})") from None
        with bounded_construction(len(weights), available):  # a plugin's body may compute values in its constructor
            build_network(settings)


def _check_names(settings: dict[str, Any]) -> None:
    known = inspect.signature(architecture_of(settings)).parameters
    for name in settings:
        if name not in (*known, "architecture"):
            raise ConfigError(f"{shown_name(name)}: a network has no such setting")
    for name, parameter in known.items():
        if name not in settings and parameter.default is parameter.empty:
            raise ConfigError(f"{name}: this setting is missing")


def _check_branching(branching: Any, tensors: int) -> None:
    """Bound the tree, whose nodes are listed before their modules are built; a leaf has several tensors."""
    if not isinstance(branching, list) or len(branching) > MAX_LEVELS:
        raise ConfigError(f"branching: must be a list of 1 to {MAX_LEVELS} whole numbers, got {shown(branching)}.")
    leaves = math.prod(whole_number("branching", level, 1, 9) for level in branching)
    if leaves > tensors:
        raise ConfigError(f"its settings need {leaves:,} leaves, and it has {tensors:,} tensors")


class _TooManyError(Exception):
    """Construction passed its bounds; no ConfigError, to which a network adds the setting at fault."""


@contextmanager
def bounded_construction(tensors: int, numbers: int) -> Iterator[None]:
    """Stop the construction of modules in this thread once they have more parameters than a checkpoint.

    Raises:
        ConfigError: they have more tensors or numbers, far more modules than tensors, or large buffers.
    """
    here, left = threading.get_ident(), [tensors, numbers, MODULES_PER_TENSOR * tensors + 1000, MAX_BUFFERS]

    def spend(*amounts: int) -> None:
        if threading.get_ident() == here:
            left[:] = map(operator.sub, left, amounts)
            if min(left) < 0:
                raise _TooManyError

    def count(module: nn.Module, name: str, part: nn.Module | Tensor | None) -> None:
        if isinstance(part, nn.Parameter):
            spend(1, part.numel(), 0, 0)
        elif isinstance(part, Tensor):
            spend(0, 0, 0, part.nbytes)
        else:
            spend(0, 0, int(part is not None), 0)

    hooks = [
        register_module_buffer_registration_hook(count),
        register_module_parameter_registration_hook(count),
        register_module_module_registration_hook(count),
    ]
    try:
        yield
    except _TooManyError:
        if left[3] < 0:
            raise ConfigError(f"its settings need tables of more than {MAX_BUFFERS // 2**20} MiB") from None
        raise ConfigError(f"its settings need more than its {tensors:,} tensors of {numbers:,} numbers") from None
    finally:
        for hook in hooks:
            hook.remove()
