"""Command-line arguments rewritten for Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

# Hydra's options that are followed by a value.
_LONG = ("cfg", "package", "config-path", "config-name", "config-dir", "experimental-rerun", "info")
_WITH_VALUE = frozenset(["-c", "-p", "-cp", "-cn", "-cd", "-i", *(f"--{name}" for name in _LONG)])
_PATHS = re.compile(r"""\s*(?:"[^"]*"|'[^']*'|[^,])+""")  # in a list
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

    Hydra accepts no option between two ``key=value`` arguments: such options are moved behind them.

    Args:
        arguments: of the command line, without the command.
        lists: keys of lists: ``save=sr,leaves`` gets brackets.
        paths: keys of paths: ``input=photo (1).jpg`` gets quotes. A key that is also one of ``lists`` may hold several
            in brackets, ``ckpt=[run (1),run (2)]``, and each gets quotes; commas alone belong to a path.
        renamed: present names of former keys.
        open_nodes: nodes with further keys, which need no ``+``.
    """
    arguments = [_renamed(argument, renamed or {}, open_nodes) for argument in _together(arguments)]
    shows = {"--cfg", "-c", "--info", "-i", "--help"} & set(arguments)
    if not shows and any(re.fullmatch(r"hydra/launcher=(?!basic$).+", argument) for argument in arguments):
        arguments = list(dict.fromkeys([*arguments, "--multirun"]))  # without it Hydra silently ignores the launcher
    if {"-m", "--multirun"} & set(arguments):
        return arguments
    return [_rewritten(argument, lists, paths) for argument in arguments]


def _together(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with all ``key=value`` ones together, at the place of the first of them."""
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
    if re.fullmatch(r"""["'].*["']|[A-Za-z0-9_/.+:*?-]*""", path):
        return path
    quoted = re.sub(r'(\\*)(?="|$)', r"\1\1", path).replace('"', '\\"')  # a backslash counts before quotes only
    return f'"{quoted}"'
