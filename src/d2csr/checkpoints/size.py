"""Size of the network that a checkpoint describes, compared with its weights before the network is built."""

from __future__ import annotations

import inspect
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

from d2csr.checks import one_of, shown, whole_number
from d2csr.errors import ConfigError, shown_name
from d2csr.models import build_network
from d2csr.models.architectures import ARCHITECTURES
from d2csr.models.bodies import BODIES, complete_settings
from d2csr.models.ensemble import MAX_PATHS
from d2csr.models.layers import upsampling_factors

MAX_LEVELS = 8  # of the tree; the paper's has 2
MODULES_PER_TENSOR = 10  # the paper's network has about 1
MAX_BUFFERS = 2**28  # bytes that are in no checkpoint; the tables of "swin" have 85 MB at three times SwinIR's depth


def check_size(settings: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Check that a network of these settings has no more parameters than there are weights.

    The number is computed from the settings. Then the network is built on the meta device, and no further than the
    number of tensors in the checkpoint allows.

    Raises:
        ConfigError: it has more parameters, or a setting is impossible, unknown or missing.
    """
    available = sum(value.numel() for value in weights.values())
    needed = count_parameters(**settings)
    if needed > available:
        raise ConfigError(f"its settings need {needed:,} parameters, its weights are {available:,} numbers")
    try:
        with bounded_construction(len(weights), available), torch.device("meta"):
            build_network(settings)
    except (RuntimeError, OverflowError, TypeError) as error:
        if _body(settings.get("body", "rcab")).__module__.startswith("d2csr."):
            raise ConfigError(f"a size is impossible ({str(error).partition(chr(10))[0][:200]})") from None
        with bounded_construction(len(weights), available):  # a plugin's body may compute values in its constructor
            build_network(settings)


def _body(body: dict[str, Any] | str) -> type[nn.Module]:
    return BODIES[complete_settings({"name": body} if isinstance(body, str) else body)["name"]]


def count_parameters(architecture: str = "d2csr", **settings: Any) -> int:
    """Compute the number of parameters of a network; a body without ``count_parameters`` counts as zero.

    Args:
        architecture: its name in :data:`d2csr.models.architectures.ARCHITECTURES`.
        settings: its other settings.

    Raises:
        ConfigError: a setting is impossible, unknown or missing.
    """
    one_of("architecture", architecture, tuple(ARCHITECTURES))
    count = _in_paths if architecture == "ensemble" else _in_tree
    known = inspect.signature(count).parameters
    for name in [*settings, *known]:
        if name not in known:
            raise ConfigError(f"{shown_name(name)}: a network has no such setting")
        if name not in settings and known[name].default is inspect.Parameter.empty:
            raise ConfigError(f"{name}: this setting is missing")
    return count(**settings)


def _in_tree(
    scale: int, features: int, branching: list[int], fusion_features: int, body: dict[str, Any] | str = "rcab"
) -> int:
    whole_number("features", features)
    whole_number("fusion_features", fusion_features)
    if not isinstance(branching, list) or not 0 < len(branching) <= MAX_LEVELS:
        raise ConfigError(f"branching: must be a list of 1 to {MAX_LEVELS} whole numbers, got {shown(branching)}.")
    nodes, leaves = 0, 1
    for level in branching:
        leaves *= whole_number("branching", level, 1, 9)
        nodes += leaves
    skip = 9 * features**2 + features
    fusion = 9 * fusion_features * (3 * leaves + fusion_features + leaves)
    in_leaf = len(branching) * skip + _in_tail(scale, features)
    return _in_shifts_and_head(features) + nodes * _in_body(features, body) + leaves * in_leaf + fusion


def _in_paths(scale: int, features: int, body: dict[str, Any] | str, paths: int = 1) -> int:
    whole_number("features", features)
    whole_number("paths", paths, 1, MAX_PATHS)
    return paths * (_in_shifts_and_head(features) + _in_body(features, body) + _in_tail(scale, features))


def _in_shifts_and_head(features: int) -> int:
    return 24 + 28 * features


def _in_tail(scale: int, features: int) -> int:
    factors = upsampling_factors(whole_number("scale", scale, 2, 8))
    return sum(factor**2 * (9 * features**2 + features) for factor in factors) + 27 * features + 3


def _in_body(features: int, body: dict[str, Any] | str) -> int:
    body = complete_settings({"name": body} if isinstance(body, str) else body)
    count = getattr(BODIES[body["name"]], "count_parameters", None)
    return 0 if count is None else count(features, **{key: value for key, value in body.items() if key != "name"})


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

    def count_parameter(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            spend(1, parameter.numel(), 0, 0)

    def count_module(module: nn.Module, name: str, child: nn.Module | None) -> None:
        spend(0, 0, 1, 0)

    def count_buffer(module: nn.Module, name: str, buffer: Tensor | None) -> None:
        if buffer is not None:
            spend(0, 0, 0, buffer.nbytes)

    hooks = [
        register_module_buffer_registration_hook(count_buffer),
        register_module_parameter_registration_hook(count_parameter),
        register_module_module_registration_hook(count_module),
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
