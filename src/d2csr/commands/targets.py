"""Arguments of configuration nodes with a ``_target_``, checked against its signature."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from d2csr.checks import flag, shown
from d2csr.errors import ConfigError

_log = logging.getLogger(__name__)
logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # logs an error that it raises, too
# Constructors of base classes: they accept any argument, but use none.
_TAKE_NOTHING = ("Module.__init__", "LightningModule.__init__", "LightningDataModule.__init__")
_BODY = "model.network.body"
_NAMED = {"model.network": "architecture", _BODY: "name"}  # nodes without a target, and the key of their name
_OWN = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")


def fit_to_targets(cfg: DictConfig, shipped: Sequence[DictConfig], overrides: Sequence[str]) -> None:
    """Drop, in place, the shipped arguments that another target or body does not have.

    With ``model.optimizer._target_=torch.optim.SGD`` the ``betas`` of ``shipped``, of :func:`shipped_files`, go.
    Arguments that the user set are kept, in a file or by the overrides of the command line.

    Raises:
        ConfigError: the target does not have an argument that the user set, needs another one, or does not exist.
    """
    from d2csr.distributed import is_rank_zero

    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    dropped = []
    keys = [key for key, value in flat(cfg) if isinstance(value, dict) and ("_target_" in value or key in _NAMED)]
    for key in keys:
        node = OmegaConf.select(cfg, key)
        if node is None:  # below an argument that was dropped
            continue
        known, required = _arguments(key, node) or (list(node), [])
        for name in [name for name in node if name not in _OWN and name not in known]:
            full = f"{key}.{name!s}"
            if any(f"{one}.".startswith(f"{full}.") for one in given) or not _is_shipped(
                full, _value(cfg, full), shipped
            ):
                what = node.get("_target_") or _described(key, node)
                raise ConfigError(f"{full}: {what} has no such argument; it has {', '.join(known) or 'none'}.")
            OmegaConf.set_struct(node, False)
            del node[name]
            dropped.append(full)
        for name in required:
            if name not in node:
                raise ConfigError(f"{key}.{name}: {node.get('_target_')} needs a value; set +{key}.{name}=….")
    if dropped and is_rank_zero():
        _log.info("defaults that the chosen targets have no argument for are dropped: %s", ", ".join(dropped))


def shipped_files(folder: str, primary: str, choices: dict[str, Any]) -> list[DictConfig]:
    """Read the primary file and those of the chosen options and of their bases, each at the place of its node."""
    files = [OmegaConf.load(Path(folder) / f"{primary}.yaml")]
    for group, option in choices.items():
        for content in [] if group.startswith("hydra/") else _with_bases(Path(folder) / group, option):
            for part in reversed(group.split("/") if group != "experiment" else []):  # experiments are _global_
                content = OmegaConf.create({part: content})
            files.append(content)
    return [file for file in files if isinstance(file, DictConfig)]


def _with_bases(group: Path, option: str) -> Iterator[Any]:
    """Yield the content of an option's file, and of the options of the same group that its defaults list names."""
    path = group / f"{option}.yaml"
    if path.is_file():
        content: Any = OmegaConf.load(path)
        yield content
        for base in content.get("defaults", ()):
            if isinstance(base, str) and base != "_self_":
                yield from _with_bases(group, base)


def source_key(cfg: DictConfig, key: str) -> str:
    """Return the key that the value of a key is interpolated from: ``scale`` for ``model.network.scale``."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    raw = _value(node, name) if isinstance(node, DictConfig) else None
    if isinstance(raw, str) and raw.startswith("${") and raw.endswith("}") and ":" not in raw:
        return source_key(cfg, raw[2:-1])
    return key


def flat(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the full key and the raw value of each key, of nodes too; interpolations are not resolved."""
    pending: list[tuple[str, Any]] = [("", OmegaConf.to_container(cfg, resolve=False))]
    while pending:
        key, value = pending.pop(0)
        if key:
            yield key, value
        if isinstance(value, dict):
            pending += [(f"{key}.{name}" if key else str(name), below) for name, below in value.items()]


def _arguments(key: str, node: DictConfig) -> tuple[list[str], list[str]] | None:
    """Return the names of all and of the required arguments of a target; ``None`` if it accepts any."""
    target = node.get("_target_")
    if "_target_" in node and not isinstance(target, str):
        raise ConfigError(f"{key}._target_: must be the name of a class, PACKAGE.MODULE.CLASS, got {shown(target)}.")
    if "_partial_" in node:  # or Hydra ends with a traceback
        flag(f"{key}._partial_", node.get("_partial_"))
    try:
        called = get_object(target) if target is not None else _named(key, node)
    except Exception as error:
        raise ConfigError(f"{key}._target_: {target!r} cannot be imported. {_import_problem(target, error)}") from None
    if called is not None and not callable(called):
        raise ConfigError(f"{key}._target_: {target} is no class or function.")
    try:
        parameters = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        return None
    if getattr(getattr(called, "__init__", None), "__qualname__", None) in _TAKE_NOTHING:
        return [], []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    if key == _BODY or node.get("_partial_"):
        parameters = parameters[1:]  # given later: the features, the parameters, the optimizer
    parameters = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in parameters if p.default is p.empty and target is not None and node.get("_partial_")]
    return [*([_NAMED[key]] if target is None else []), *(p.name for p in parameters)], required


def _named(key: str, node: DictConfig) -> Any:
    """Return the class of a network or body that a node names; ``None`` for an unknown name."""
    from d2csr.models.architectures import ARCHITECTURES
    from d2csr.models.bodies import BODIES

    return BODIES.get(node.get("name")) if key == _BODY else ARCHITECTURES.get(node.get("architecture", "d2csr"))


def _described(key: str, node: DictConfig) -> str:
    return f"the body {node.name!r}" if key == _BODY else f"the architecture {node.get('architecture', 'd2csr')!r}"


def _is_shipped(key: str, value: Any, shipped: Sequence[DictConfig]) -> bool:
    """Return whether a value, or each one below a node, is that of a shipped file."""
    if isinstance(value, dict) and value:
        return all(_is_shipped(f"{key}.{name}", below, shipped) for name, below in value.items())
    return any(_value(file, key) == value for file in shipped)


def _import_problem(target: str, error: Exception) -> str:
    """Return the names that are like a mistyped one, or else the cause of an import error of Hydra."""
    module, _, name = target.rpartition(".")
    if nearest := get_close_matches(name, dir(sys.modules.get(module)), n=1):
        return f"Did you mean {module}.{nearest[0]}?"
    return " ".join(str(error).splitlines()[1:2] or str(error).splitlines())


def _value(cfg: DictConfig, key: str) -> Any:
    """Return the raw value of a key, or ``...`` if there is none."""
    value: Any = OmegaConf.to_container(cfg, resolve=False)
    for part in key.split("."):
        value = value.get(part, ...) if isinstance(value, dict) else ...
    return value
