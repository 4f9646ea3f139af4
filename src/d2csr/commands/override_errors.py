"""Messages for command-line arguments that Hydra cannot compose: what is wrong, and the nearest names that exist."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from d2csr.commands.targets import flat
from d2csr.errors import ConfigError, did_you_mean
from d2csr.renamed import BY_COMMAND, REPLACED

_FULL_ERROR = "HYDRA_FULL_ERROR"
_SIMILAR: dict[str, Any] = {"most": 3, "cutoff": 0.75}  # names that are suggested
_given: list[str | None] = []  # the user's value of _FULL_ERROR, while it is replaced


@contextmanager
def override_errors(config_dir: str, config_name: str, arguments: Sequence[str]) -> Iterator[None]:
    """Raise a ConfigError with one message for an error of Hydra; with ``HYDRA_FULL_ERROR=1`` the error itself."""
    if os.environ.get(_FULL_ERROR) == "1":
        yield
        return
    _given.append(os.environ.get(_FULL_ERROR))
    os.environ[_FULL_ERROR] = "1"  # Hydra then raises its errors; otherwise it prints them and exits
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_message(error, config_dir, config_name, arguments)) from None
    finally:
        restore_full_error()


def restore_full_error() -> None:
    """Give ``HYDRA_FULL_ERROR`` the user's value again, for the function of the command and its child processes."""
    while _given:
        value = _given.pop()
        os.environ.pop(_FULL_ERROR)
        if value is not None:
            os.environ[_FULL_ERROR] = value


def _message(error: Exception, config_dir: str, config_name: str, arguments: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        return _no_such_option(error.missing_cfg_file, error.options)
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read ({text.splitlines()[0]}). Quote a value with brackets, commas or "
            "parentheses twice: 'KEY=\"VALUE\"'."
        )
    if group := re.match(
        r"Could not override '(.+)'\. No match in the defaults list.*\n.*use (\+\S+)", text, re.DOTALL
    ):
        return f"{group[1]}: has no default; write {group[2]}."
    if existing := re.match(r"Could not append to config\. An item is already at '(.+)'", text):
        return f"{existing[1]}: exists already; write {existing[1]}=VALUE, without +."
    if several := re.match(r"Ambiguous value for argument '(.+?)=(.+)'", text):
        key, values = several.groups()
        return f"{key}={values}: several values need --multirun; a list has brackets, {key}=[{values}]."
    if unknown := re.match(r"Could not (?:override|delete from config\.) '(.+?)'", text):
        if present := REPLACED.get(config_name, {}).get(unknown[1]):
            return f"{unknown[1]}: this key is now {present}."
        known = known_keys(config_dir, config_name, arguments, unknown[1])
        addable = "delete" not in unknown[0] and _takes_more(unknown[1], known)
        advice = f" To add it anyway, write +{unknown[1]}=VALUE." if addable else ""
        names = {*known, *BY_COMMAND.get(config_name, ())}
        nearest = did_you_mean(unknown[1], names, **_SIMILAR) or _beside(unknown[1], known)
        return f"{unknown[1]}: no such key. {nearest}{advice}"
    return " ".join(line.strip() for line in text.splitlines() if not re.match(r"\s*(full_key|object_type)=?", line))


def _takes_more(key: str, known: set[str]) -> bool:
    """Return whether a key may be added: its node holds arguments of targets. Keys of other nodes are refused."""
    node = key.partition(".")[0]
    return node != key and any(name.startswith(f"{node}.") and name.endswith("._target_") for name in known)


def _no_such_option(missing: str, options: Sequence[str]) -> str:
    group, _, name = missing.rpartition("/")
    suggestion = did_you_mean(name, options, **_SIMILAR) or f"Choose one of {', '.join(sorted(options))}."
    return f"{group}={name}: no such option. {suggestion}"


def _beside(key: str, known: set[str]) -> str:
    """Return the keys of the same node."""
    parent = key.rpartition(".")[0]
    names = {name.removeprefix(f"{parent}.").partition(".")[0] for name in known if name.startswith(f"{parent}.")}
    return f"{parent} has {', '.join(sorted(names))}." if names else "--help names the keys."


def known_keys(config_dir: str, config_name: str, arguments: Sequence[str], failing: str) -> set[str]:
    """Return the keys of the configuration that the other arguments compose; none if they have an error too."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    try:
        overrides = [one for one in arguments if not one.startswith("-")]
        parsed = OverridesParser.create().parse_overrides(overrides)
        others = [
            text
            for text, override in zip(overrides, parsed, strict=True)
            if override.key_or_group != failing and not override.is_sweep_override()
        ]
        with initialize_config_dir(config_dir, version_base="1.3"):
            return {key for key, _ in flat(compose(config_name, overrides=others))}
    except (HydraException, OmegaConfBaseException):
        return set()
