"""Checks of settings, with one message for each kind of mistake.

Errors name the argument (``features: must be …``). A caller that knows the argument's configuration key adds it with
:func:`keys_below`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from d2csr.errors import ConfigError

SCALES = (2, 3, 4, 8)


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return a whole number within its range; ``True`` and ``4.0`` are none.

    Raises:
        ConfigError: it is no whole number, or out of its range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"from {least} up" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name}: must be a whole number {span}, got {value!r}.")
    return value


def number(
    name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> float:
    """Return a finite number with ``least`` <= number, ``above`` < number < ``below``.

    Raises:
        ConfigError: it is no number, or out of its range.
    """
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not (least <= value and above < value < below):
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("at least", least), ("above", above), ("below", below))
            if math.isfinite(limit)
        ]
        raise ConfigError(f"{name}: must be a number{' ' + ' and '.join(limits) if limits else ''}, got {value!r}.")
    return value


def one_of(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Return a value that is among the choices.

    Raises:
        ConfigError: it is not.
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):  # 4.0 is not 4, True is not 1
        raise ConfigError(f"{name}: must be one of {', '.join(map(str, choices))}, got {value!r}.")
    return value


def several_of(name: str, value: Any, choices: Sequence[str], least: int = 0) -> tuple[str, ...]:
    """Return values from a list, or from a text with commas, that are each among the choices; repeated ones once.

    Raises:
        ConfigError: a value is not, or there are fewer than ``least``.
    """
    given = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value or ())
    values = tuple(dict.fromkeys(str(one) for one in given))
    if len(values) < least or not set(values) <= set(choices):
        raise ConfigError(f"{name}: must be of {', '.join(choices)}, got {', '.join(values) or 'nothing'}.")
    return values


def flag(name: str, value: Any) -> bool:
    """Return ``True`` or ``False``.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: must be true or false, got {value!r}.")
    return value


@contextmanager
def keys_below(key: str) -> Iterator[None]:
    """Put a configuration key in front of the argument that an error names: ``features`` to ``model.network.features``.

    Raises:
        ConfigError: the one that was raised inside, with the key.
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
