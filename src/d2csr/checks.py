"""Checks of settings.

Each returns its value, or raises a ConfigError that names the argument (``features: must be …``). A caller that knows
the configuration key of the argument adds it by :func:`keys_below`.
"""

from __future__ import annotations

import importlib.util
import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from d2csr.errors import ConfigError

# Values that the commands check before they import torch.
SCALES = (2, 3, 4, 8)
OPTIMIZATIONS = ("alternating", "joint", "sequential")
PROTOCOLS = ("d2csr", "cdc", "y", "realsr", "rgb")  # of d2csr.metrics.protocols
INFERENCE_MODES = ("auto", "strips", "tiles")
MATCHED = ("parameters", "flops")  # of match
MATCHED_BY = ("width", "depth")
SAVED_BY_EVAL = ("sr", "panels")
SAVED_BY_UPSCALE = ("sr", "leaves", "weights")
_SHOWN = 200  # characters of a value in a message; a checkpoint can hold millions


def shown(value: Any) -> str:
    """Return a value as it is written in Python, cut for a message."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a very large number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Check for a whole number from ``least`` to ``most``; ``True`` and ``4.0`` are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"from {least} up" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name}: must be a whole number {span}, got {shown(value)}.")
    return value


_LIMITS = {
    "least": ("at least", operator.ge),
    "most": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}


def number(name: str, value: Any, **limits: float) -> float:
    """Check for a finite number within limits: from ``least`` to ``most``, ``above`` one or ``below`` one."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not all(_LIMITS[limit][1](value, bound) for limit, bound in limits.items()):
        span = " and".join(f" {_LIMITS[limit][0]} {bound:g}" for limit, bound in limits.items())
        raise ConfigError(f"{name}: must be a number{span}, got {shown(value)}.")
    return value


def one_of(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Check for one of the choices."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):  # 4.0 is not 4, True is not 1
        raise ConfigError(f"{name}: must be one of {', '.join(map(str, choices))}, got {shown(value)}.")
    return value


def several_of(name: str, value: Any, choices: Sequence[str], least: int = 0) -> tuple[str, ...]:
    """Check for at least ``least`` of the choices, in a list or a string with commas; return each once."""
    given = [part.strip() for part in value.split(",")] if isinstance(value, str) else value or ()
    given = list(given) if isinstance(given, list | tuple | set) else [given]
    values = tuple(dict.fromkeys(str(one) for one in given))
    if len(values) < least or not set(values) <= set(choices):
        raise ConfigError(f"{name}: must be of {', '.join(choices)}, got {', '.join(values)[:_SHOWN] or 'nothing'}.")
    return values


def flag(name: str, value: Any) -> bool:
    """Check for ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: must be true or false, got {shown(value)}.")
    return value


def text(name: str, value: Any) -> str:
    """Check for a text."""
    if not isinstance(value, str):
        raise ConfigError(f"{name}: must be a text, got {shown(value)}.")
    return value


def exclusive(resume: Any, init_from: Any) -> None:
    """Check that at most one of them is set; ``resume=auto`` may be, and has priority if there is a run."""
    if resume and str(resume) != "auto" and init_from:
        raise ConfigError("resume=… and init_from=… exclude each other: a resumed run has its own weights.")


def nested(settings: Any, *keys: str) -> Any:
    """Return the value at some keys of nested dicts, which may be foreign; None if there is none."""
    for key in keys:
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings


def require_packages(what: str, packages: Sequence[str], extra: str) -> None:
    """Check that packages of an extra are installed; ``what`` needs them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{what} needs {' and '.join(missing)}; install it by: pip install 'd2csr[{extra}]'.")


@contextmanager
def keys_below(key: str) -> Iterator[None]:
    """Put a configuration key in front of the argument that a ConfigError names: ``model.network`` and ``features``."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
