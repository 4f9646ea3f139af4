"""Command-line arguments: rewritten for Hydra's grammar, and messages for those that Hydra cannot compose."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from d2csr.commands.targets import flat
from d2csr.errors import ConfigError, did_you_mean
from d2csr.renamed import BY_COMMAND, REPLACED

# Hydra's options that are followed by a value.
_LONG = ("cfg", "package", "config-path", "config-name", "config-dir", "experimental-rerun", "info")
_WITH_VALUE = frozenset(["-c", "-p", "-cp", "-cn", "-cd", "-i", *(f"--{name}" for name in _LONG)])
_NO_TEXT = re.compile(r"(?i)true|false|[+-]?(inf|nan)|[+-]?[\d_.]+(e[+-]?\d+)?")  # a file of such a name needs quotes
_PATHS = re.compile(r"""\s*(?:"[^"]*"|'[^']*'|[^,])+""")  # in a list
_FOREIGN = re.compile(r"\+*(\w+)\._target_=(?!d2csr\.)")
_KEY = re.compile(r"(?P<prefix>\+\+|\+|~|)(?P<key>[^=]*)(?P<rest>=.*|)", re.DOTALL)


def hydra_arguments(
    arguments: Sequence[str],
    *,
    lists: Collection[str] = (),
    paths: Collection[str] = (),
    renamed: Mapping[str, str] | None = None,
    open_nodes: Collection[str] = (),
) -> list[str]:
    """Rewrite command-line arguments into Hydra's grammar, except values with ``--multirun``, which a launcher implies.

    Args:
        arguments: of the command line, without the command.
        lists: keys of lists: ``save=sr,leaves`` gets brackets.
        paths: keys of paths: ``input=photo (1).jpg`` gets quotes. A key that is also one of ``lists`` may hold several
            in brackets, ``ckpt=[run (1),run (2)]``, and each gets quotes; commas alone belong to a path.
        renamed: present names of former keys. A top node with a ``_target_`` of another package has its own keys.
        open_nodes: nodes with further keys, which need no ``+``.
    """
    foreign = tuple(f"{match[1]}." for argument in arguments if (match := _FOREIGN.match(argument)))
    renamed = {former: now for former, now in (renamed or {}).items() if not former.startswith(foreign)}
    arguments = [_renamed(argument, renamed, open_nodes) for argument in _together(arguments)]
    shows = {"--cfg", "-c", "--info", "-i", "--help"} & set(arguments)
    if not shows and any(re.fullmatch(r"hydra/launcher=(?!basic$).+", argument) for argument in arguments):
        arguments = list(dict.fromkeys([*arguments, "--multirun"]))  # without it Hydra silently ignores the launcher
    if {"-m", "--multirun"} & set(arguments):
        return arguments
    return [_rewritten(argument, lists, paths) for argument in arguments]


def _together(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with all ``key=value`` ones together, as Hydra needs them, at the place of the first."""
    before = ["", *arguments]
    is_override = [
        not argument.startswith("-")
        and (previous not in _WITH_VALUE or (previous in ("--info", "-i") and "=" in argument))
        for previous, argument in zip(before, arguments, strict=False)
    ]
    first = is_override.index(True) if True in is_override else len(arguments)
    options = [argument for argument, other in zip(arguments, is_override, strict=True) if not other]
    overrides = [argument for argument, own in zip(arguments, is_override, strict=True) if own]
    return [*options[:first], *overrides, *options[first:]]


def _renamed(argument: str, renamed: Mapping[str, str], open_nodes: Collection[str]) -> str:
    match = _KEY.fullmatch(argument)
    if match is None or argument.startswith("-"):
        return argument
    prefix, key = match["prefix"], renamed.get(match["key"], match["key"])
    if prefix != "~" and match["rest"] and any(key.startswith(f"{node}.") for node in open_nodes):
        prefix = "++"
    return f"{prefix}{key}{match['rest']}"


def _rewritten(argument: str, lists: Collection[str], paths: Collection[str]) -> str:
    key, equals, value = argument.partition("=")
    if not equals:
        return argument
    if key in paths:
        if key in lists and value.startswith("[") and value.endswith("]"):
            return f"{key}=[{','.join(_quoted(path.strip()) for path in _PATHS.findall(value[1:-1]))}]"
        return f"{key}={_quoted(value)}"
    if key in lists and "," in value and not value.startswith(("[", '"', "'")):
        return f"{key}=[{value}]"
    return argument


def _quoted(path: str) -> str:
    if re.fullmatch(r"""["'].*["']|null|[A-Za-z0-9_/.+:*?-]*""", path) and not _NO_TEXT.fullmatch(path):
        return path
    quoted = re.sub(r'(\\*)(?="|$)', r"\1\1", path).replace('"', '\\"')  # a backslash counts before quotes only
    return f'"{quoted}"'


_FULL_ERROR = "HYDRA_FULL_ERROR"
_SIMILAR: dict[str, Any] = {"most": 3, "cutoff": 0.75}  # names that are suggested
_given: list[str | None] = []  # the user's value of _FULL_ERROR, while it is replaced
_MESSAGES = (  # by the beginning of Hydra's
    (
        r"Could not override '(.+)'\. No match in the defaults list(?s:.*) use (\+\S+)",
        "{0}: has no default; write {1}.",
    ),
    (r"Could not append to config\. An item is already at '(.+)'", "{0}: exists already; write {0}=VALUE, without +."),
    (
        r"Error merging override (.+?)=(.*)",
        "{0}={1}: a value of another kind than the key has. The keys of a node are set by {0}.KEY=VALUE.",
    ),
    (
        r"Ambiguous value for argument '(.+?)=(.+)'",
        "{0}={1}: several values need --multirun; a list has brackets, {0}=[{1}].",
    ),
)


@contextmanager
def override_errors(config_dir: str, config_name: str, arguments: Sequence[str]) -> Iterator[None]:
    """Raise a ConfigError with one message for an error of Hydra; with ``HYDRA_FULL_ERROR=1`` the error itself."""
    if os.environ.get(_FULL_ERROR) == "1":
        yield
        return
    _given.append(os.environ.get(_FULL_ERROR))
    os.environ[_FULL_ERROR] = "1"  # Hydra then raises its errors; otherwise it prints them and exits
    try:
        _check_groups(Path(config_dir), arguments)
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_message(error, config_dir, config_name, arguments)) from None
    finally:
        restore_full_error()


def _check_groups(config_dir: Path, arguments: Sequence[str]) -> None:
    """Refuse values of groups that are no names: Hydra ends with a traceback."""
    for argument in arguments:
        match = _KEY.fullmatch(argument)
        if match is None or not match["key"] or match["prefix"] == "~" or not (config_dir / match["key"]).is_dir():
            continue
        override = OverridesParser.create().parse_override(argument)
        value = [] if override.is_sweep_override() else override.value()
        if not isinstance(value, str | dict) and not (isinstance(value, list) and all(type(v) is str for v in value)):
            options = [path.stem for path in (config_dir / match["key"]).glob("*.yaml")]
            raise ConfigError(_no_such_option(f"{match['key']}/{match['rest'][1:]}", options))


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
    for pattern, message in _MESSAGES:
        if match := re.match(pattern, text):
            return message.format(*match.groups())
    if unknown := re.match(r"Could not (?:override|delete from config\.) '(.+?)'", text):
        if present := REPLACED.get(config_name, {}).get(unknown[1]):
            return f"{unknown[1]}: this key is now {present}."
        known = known_keys(config_dir, config_name, arguments, unknown[1])
        addable = "delete" not in unknown[0] and _takes_more(unknown[1], known)
        advice = f" To add it anyway, write +{unknown[1]}=VALUE." if addable else ""
        names = {*known, *BY_COMMAND.get(config_name, ())}
        nearest = did_you_mean(unknown[1], names, **_SIMILAR) or _beside(unknown[1], known)
        return f"{unknown[1]}: no such key. {nearest}{advice}"
    return one_message(text)


def one_message(text: str) -> str:
    """Return the text of an error of Hydra or OmegaConf on one line, without its notes about types, the key first."""
    key = re.search(r"^\s*full_key: (\S+)", text, re.MULTILINE)
    line = " ".join(line.strip() for line in text.splitlines() if not re.match(r"\s*(full_key|object_type)=?", line))
    return f"{key[1]}: {line}" if key else line


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
