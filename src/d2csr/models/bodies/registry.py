"""Registry of bodies, the modules of the nodes of the divergence tree.

A body is a module with ``__init__(self, features: int, **settings)`` that maps N×F×H×W to N×F×H×W for any H and W. Its
settings are plain values, since a checkpoint stores them and rebuilds the body from them. It also runs on the meta
device, on which inference estimates its memory.

A body may have an attribute ``receptive_field``: the side, in LR pixels, of the square of inputs that an output pixel
depends on; None if it is not bounded or not known. Inference in tiles overlaps them accordingly. For None it adds up
the kernels of the body's convolutions, or overlaps the tiles by half if the body has attention or shifts.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from d2csr.checks import shown
from d2csr.errors import ConfigError

BODIES: dict[str, type[nn.Module]] = {}

_Body = TypeVar("_Body", bound=type[nn.Module])


def register_body(name: str) -> Callable[[_Body], _Body]:
    """Register a body under a name, as a decorator of its class.

    A class with the same qualified name, as after a reload, replaces the first.

    Raises:
        ConfigError: another class has this name.

    Example:
        >>> @register_body("identity")
        ... class Identity(nn.Module):
        ...     def __init__(self, features: int) -> None:
        ...         super().__init__()
        ...
        ...     def forward(self, x):
        ...         return x
    """

    def register(body: _Body) -> _Body:
        other = BODIES.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (body.__module__, body.__qualname__):
            raise ConfigError(
                f"body.name: {name!r} is taken by {other.__module__}.{other.__qualname__}; choose another."
            )
        BODIES[name] = body
        return body

    return register


def complete_settings(body: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return the name and all settings of a body, with its defaults, from its name and perhaps some settings.

    Raises:
        ConfigError: the name or a setting is unknown, a setting is missing, or a value is not plain.
    """
    if isinstance(body, str):
        body = {"name": body}
    if not isinstance(body, Mapping):
        raise ConfigError(f"body: must hold a name and the settings of a body, got {shown(body)}.")
    name = body.get("name")
    if not isinstance(name, str) or name not in BODIES:
        raise ConfigError(
            f"body.name: must be one of {', '.join(BODIES)}, got {shown(name)}. Name the module that registers a body "
            "of your own by plugins=[my_module]."
        )
    given = {str(key): value for key, value in body.items() if key != "name"}
    settings: dict[str, Any] = {}
    for key, parameter in list(inspect.signature(BODIES[name]).parameters.items())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            settings |= given
            given = {}
        elif key in given or parameter.default is not parameter.empty:
            settings[key] = given.pop(key, parameter.default)
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            raise ConfigError(f"body.{key}: the body {name!r} needs a value.")
    if given:
        known = f"its settings: {', '.join(settings)}" if settings else "it has none"
        raise ConfigError(f"body.{next(iter(given))[:100]}: the body {name!r} has no such setting; {known}.")
    return {"name": name, **{key: _plain(f"body.{key}", value) for key, value in settings.items()}}


def build_body(features: int, body: Mapping[str, Any]) -> nn.Module:
    """Build a body from its complete settings; raises ConfigError for an impossible value."""
    settings = {key: value for key, value in body.items() if key != "name"}
    try:
        return BODIES[body["name"]](features, **settings)
    except ConfigError as error:
        raise ConfigError(f"body.{error}") from None


def _plain(name: str, value: Any) -> Any:
    """Check that JSON and ``torch.load(weights_only=True)`` keep a value unchanged; a tuple becomes a list."""
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    raise ConfigError(
        f"{name}: must be a number, a string, true, false, null or a list, not NaN or infinity: {shown(value)}."
    )
