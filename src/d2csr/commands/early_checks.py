"""Checks of a configuration that need no torch, so that a mistake is reported within a second and leaves no folder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from d2csr.checks import (
    INFERENCE_MODES,
    MATCHED,
    MATCHED_BY,
    OPTIMIZATIONS,
    PROTOCOLS,
    SAVED_BY_EVAL,
    SAVED_BY_UPSCALE,
    SCALES,
    exclusive,
    flag,
    one_of,
    several_of,
    text,
    whole_number,
)
from d2csr.commands.targets import flat
from d2csr.errors import ConfigError, UserError, did_you_mean
from d2csr.files import find_checkpoint, require_folder, user_path
from d2csr.renamed import BY_COMMAND, REPLACED

_OPTIONAL = ("callbacks", "logger", "plugins", "shell")  # keys and groups that may be removed, as by ~logger
_SAVE = {"eval": SAVED_BY_EVAL, "upscale": SAVED_BY_UPSCALE}
_CHECKPOINTS = ("ckpt", "source", "resume", "init_from")
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "optimization": partial(one_of, choices=OPTIMIZATIONS),
    "scale": partial(one_of, choices=SCALES),
    "model.protocol": partial(one_of, choices=PROTOCOLS),
    "inference.mode": partial(one_of, choices=INFERENCE_MODES),
    "protocol": partial(one_of, choices=PROTOCOLS),
    "protocols": partial(several_of, choices=PROTOCOLS),
    "match": partial(one_of, choices=MATCHED),
    "match_by": partial(one_of, choices=MATCHED_BY),
    "seed": partial(whole_number, least=0, most=2**32 - 1),
    **dict.fromkeys(("model.network.features", "model.network.fusion_features"), whole_number),
    **dict.fromkeys(("logger.csv.name", "logger.tensorboard.name", "data.name"), text),
    **dict.fromkeys(("data.batch_size", "data.patch_size", "data.patches_per_image"), whole_number),
}
# Keys that have the value of another one, which a user sets for all parts of a run.
_SHARED = {
    **dict.fromkeys(("model.network.scale", "data.scale"), "scale"),
    **dict.fromkeys(("model.optimization", "trainer.optimization"), "optimization"),
}
# Arguments of Lightning's Trainer that the commands set: what to do in d2csr-train, and in the others.
_TRAINER_ARGUMENTS = {
    "callbacks": ("set +callbacks.NAME._target_=CLASS", "only d2csr-train takes callbacks"),
    "logger": ("choose logger=csv, tensorboard or wandb", "only d2csr-train has loggers"),
    "default_root_dir": ("set hydra.run.dir=FOLDER", "set the folder of the results"),
}


def check_early(cfg: DictConfig, primary: Path) -> None:
    """Check a configuration for missing values, former and unknown keys, impossible names and missing files.

    ``primary`` is the shipped file that it was composed from, such as ``conf/train.yaml``.

    Raises:
        UserError: it has one of these mistakes.
    """
    missing = sorted(key for key, value in flat(cfg) if value == MISSING and not key.startswith("hydra."))
    if missing:
        raise UserError(f"{' '.join(f'{key}=…' for key in missing)} is missing; see --help.")
    if OmegaConf.select(cfg, "model.network._target_") is not None and _is_own(cfg, "model"):
        raise ConfigError(
            "model.network._target_: the network is built from names and numbers. A network of your own is a body, "
            "model.network.body.name=…, or part of a LightningModule, model._target_=…; see docs/extending.md."
        )
    for former, present in (BY_COMMAND.get(primary.stem) or REPLACED.get(primary.stem, {})).items():
        parent, _, name = former.rpartition(".")
        node = OmegaConf.select(cfg, parent)
        if isinstance(node, DictConfig) and name in node and _is_own(cfg, former.partition(".")[0]):
            raise ConfigError(f"{former}: this key is now {present}; change your configuration file.")
    _check_keys(cfg, primary)
    _check_values(cfg)
    if primary.stem in _SAVE:
        several_of("save", _plain(cfg.save), _SAVE[primary.stem])
    for name, advice in _TRAINER_ARGUMENTS.items():
        if name in (cfg.get("trainer") or ()):
            raise ConfigError(f"trainer.{name}: {advice['callbacks' not in cfg]}.")
    exclusive(cfg.get("resume"), cfg.get("init_from"))
    if "sr" in cfg and not cfg.get("ckpt") and not cfg.sr:
        raise UserError("ckpt=… is missing, or sr=FOLDER to score the images of another method; see --help.")
    for path in [path for name in _CHECKPOINTS for path in _paths(cfg.get(name))]:
        if path != "auto" and "://" not in str(path):
            find_checkpoint(str(path), preferred=("best.ckpt", "last.ckpt", "previous.ckpt"))
    for path in _paths(cfg.get("sr")):
        if isinstance(path, str) and not user_path(path).exists():
            raise UserError(f"sr: {path}: no such folder or list.")
    if isinstance(cfg.get("data"), DictConfig) and primary.stem != "summary":  # which reads no data
        _check_data(cfg.data)


def _check_keys(cfg: DictConfig, primary: Path) -> None:
    """Refuse keys that nothing reads; nodes with a ``_target_`` are checked when their objects are built."""
    shipped, groups = _shipped(primary)
    if "inference" in groups:  # the only group of settings that are no arguments of a target
        groups.remove("inference")
        shipped["inference"] = OmegaConf.to_container(OmegaConf.load(primary.parent / "inference" / "default.yaml"))
    yaml = OmegaConf.to_yaml(cfg)
    for name in map(str, cfg):
        # A value that others refer to is used.
        if name not in {*shipped, *groups, "hydra"} and f"${{{name}" not in yaml:
            known = [*shipped, *groups, *(["experiment"] if "callbacks" in groups else [])]  # of d2csr-train alone
            raise ConfigError(f"{name}: no such key. {_nearest(name, dict.fromkeys(known))}")
    for name in [*shipped, *groups]:
        if name not in (*cfg, *_OPTIONAL, "hydra") and " " not in name:
            raise ConfigError(f"{name}: is missing; remove ~{name}.")
        # Keys of an experiment remain where the option itself was removed.
        if name in groups and name not in _OPTIONAL and "_target_" not in cfg[name]:
            raise ConfigError(f"{name}: has no _target_. Choose an option, {name}=…, instead of ~{name} or {name}=[].")
    for node, content in shipped.items():
        if node in ("hydra", *groups, *_OPTIONAL):
            continue
        if not isinstance(content, dict):
            _check_kind(node, cfg[node], content)
            continue
        if not isinstance(cfg[node], DictConfig):
            raise ConfigError(f"{node}: has keys of its own: {', '.join(f'{node}.{name}=…' for name in content)}.")
        if "_target_" in cfg[node]:
            continue
        for name in map(str, cfg[node]):
            if name not in content:
                raise ConfigError(f"{node}.{name}: no such key. {_nearest(name, content)}")


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Check a value by its default: true or false, and null only where it is the default or a list may be empty."""
    if isinstance(default, bool):
        flag(key, value)
    elif value in (None, "") and default == MISSING:
        raise UserError(f"{key}=… is missing; see --help.")
    elif value is None and isinstance(default, str | int | float):
        raise ConfigError(f"{key}: needs a value; its default is {default!r}.")


def _shipped(primary: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the content of a shipped file and of the files that it extends, and the names of their groups."""
    shipped: Any = OmegaConf.to_container(OmegaConf.load(primary))
    groups = []
    for entry in shipped.pop("defaults"):
        if isinstance(entry, dict):
            group = next(iter(entry))
            groups += [] if "/" in group else [group]  # a part of another group, such as hydra/job_logging
        elif entry != "_self_":
            base, further = _shipped(primary.parent / f"{entry}.yaml")
            shipped, groups = {**base, **shipped}, [*groups, *further]
    return shipped, groups


def _check_values(cfg: DictConfig) -> None:
    """Check names and numbers of the shipped nodes; other targets have their own meaning of a key."""
    for key, check in _CHECKS.items():
        value = OmegaConf.select(cfg, key)
        node, below, _ = key.partition(".")
        if value is not None and (not below or _is_own(cfg, node)):
            check(key, _plain(value))
    for key, source in _SHARED.items():
        value = OmegaConf.select(cfg, key)
        if value not in (None, cfg.get(source)) and _is_own(cfg, key.partition(".")[0]):
            raise ConfigError(
                f"{key}: is {value}, but {source} is {cfg[source]}. Set {source}={value}, which sets both."
            )


def _plain(value: Any) -> Any:
    return OmegaConf.to_object(value) if OmegaConf.is_list(value) else value


def _nearest(name: str, names: Collection[str]) -> str:
    return did_you_mean(name, names) or f"The keys are {', '.join(names)}; see --help."


def _is_own(cfg: DictConfig, node: str) -> bool:
    return str(OmegaConf.select(cfg, f"{node}._target_", default="d2csr.")).startswith("d2csr.")


def _paths(value: Any) -> list[Any]:
    """Return the values of a key that takes no path, one, or a list of them."""
    return [path for path in (value if OmegaConf.is_list(value) else [value]) if path is not None]


def _check_data(data: DictConfig) -> None:
    """Check that the lists and the folder exist; those of the demo and of other data modules may be made later."""
    from d2csr.data.discovery import require_root
    from d2csr.data.lists import require_list
    from d2csr.data.splits import Splits

    named = [data.get(key) for key in ("train_list", "val_list", "test_list")]
    for path in named:
        if path is not None:
            require_list(user_path(str(path)))
    for key in ("hr", "val_hr", "test_hr"):
        if str(data.get("_target_")).endswith(".DegradedDataModule") and data.get(key) is not None:
            require_folder(str(data[key]), f"Name the folder of HR images by data.{key}=FOLDER.")
    if "_target_" not in data and data.get("root") is not None:  # of an evaluation
        require_root(str(data.root), data.get("name") or "pairs")
    if not str(data.get("_target_")).endswith(".PairDataModule"):
        return
    for key in ("name", "scale"):
        if data.get(key) is None:
            raise ConfigError(f"data.{key}: needs a value.")
    splits = Splits(**{field.name: data[field.name] for field in fields(Splits) if data.get(field.name) is not None})
    for split in ("train", "val"):
        splits.require(split)
