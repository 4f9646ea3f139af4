"""Format of the project's own checkpoints.

Training checkpoints and exported weights share it. ``"d2csr"`` holds a plain description and ``"state_dict"`` the
weights, those of the model with the prefix ``network.``. If training averages the weights, ``"state_dict"`` holds the
trained ones and ``"average"`` the averaged ones, without the prefix. Everything loads with
``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import d2csr
from d2csr.checkpoints.archive import read_archive
from d2csr.checks import flag, nested, whole_number
from d2csr.errors import CheckpointError, ConfigError, shown_name
from d2csr.files import write_checkpoint_file
from d2csr.models import SRNetwork

KEY = "d2csr"
AVERAGE = "average"
PREFIX = "network."
_FORMAT = 2  # 1: the settings of the body were among those of the network
# The description of the data is limited to names and paths: a checkpoint does not choose machine settings. The last two
# are the source of the validation pairs; selected_on only where the weights are the best ones on them.
_DATA = ("name", "scale", "train_list", "val_list", "test_list", "list_dir", "root", "validated_on", "selected_on")


def describe(model: SRNetwork, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the description in a checkpoint: format, version, the network's settings, its training data."""
    return {"format": _FORMAT, "version": d2csr.__version__, "network": model.settings, "data": data or {}}


def save_model(path: str | Path, model: SRNetwork, data: dict[str, Any] | None = None) -> None:
    """Write weights, and names and paths of the training data, atomically; raise a CheckpointError if that fails."""
    weights = {PREFIX + name: value.detach().cpu() for name, value in model.state_dict().items()}
    with write_checkpoint_file(Path(path)) as partial:
        torch.save({KEY: describe(model, data), "state_dict": weights}, partial)


def read_own(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Return the network's settings, its state dict, averaged if possible, and its data, or raise a CheckpointError."""
    content = read_archive(Path(path), (KEY, "state_dict", AVERAGE))
    about = nested(content, KEY)
    if not isinstance(nested(about, "network"), dict) or not isinstance(nested(content, "state_dict"), dict):
        raise CheckpointError(
            f"{path}: a PyTorch file, but no checkpoint of this package. Known forms: checkpoints of d2csr-train, "
            "exports of d2csr-convert, and official D2C-SR pickles."
        )
    with malformed(path):
        if whole_number("format", about.get("format", 1)) > _FORMAT:
            version = shown_name(about.get("version"))
            raise CheckpointError(f"{path}: written by a newer version of d2csr ({version}); please update.")
        state = dict_of(object, "state_dict", content["state_dict"])
        ours = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
        weights = dict_of(Tensor, "state_dict", ours) | dict_of(Tensor, AVERAGE, content.get(AVERAGE) or {})
        data = dict_of(object, "data", about.get("data") or {})
        data = dict_of(str | int | None, "data", {key: data[key] for key in _DATA if key in data})
        network = plain_dict("network", about["network"])
    return _current(network), weights, data


def dict_of(kind: Any, name: str, value: Any) -> dict[str, Any]:
    """Return a dict of strings to values of a type; raises ConfigError for anything else."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name}: must be a dict with names as keys.")
    for key, item in value.items():
        if not isinstance(item, kind):
            raise ConfigError(f"{name}.{shown_name(key)}: of the wrong type, {type(item).__name__}.")
    return value


def plain_dict(name: str, value: Any) -> dict[str, Any]:
    """Return a dict of numbers, strings, flags, None, lists and such dicts; raises ConfigError for anything else."""
    for key, item in dict_of(object, name, value).items():
        _require_plain(f"{name}.{shown_name(key)}", item)
    return value


def _require_plain(name: str, value: Any) -> None:
    if isinstance(value, dict):
        plain_dict(name, value)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_plain(name, item)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise ConfigError(f"{name}: of the wrong type, {type(value).__name__}.")


@contextmanager
def malformed(path: str | Path) -> Iterator[None]:
    """Turn a ConfigError raised inside into a CheckpointError that names the file."""
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{path}: a malformed checkpoint: {error}") from None


def _current(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a network in their present form."""
    if "body" in settings:
        return settings
    inner = ("groups", "blocks", "reduction")
    outer = {key: value for key, value in settings.items() if key not in inner}
    return {**outer, "body": {"name": "rcab", **{key: settings[key] for key in inner if key in settings}}}


# Entries of a training checkpoint beside those of Lightning.
POSITION, SETTINGS, SCHEDULES = "position", "settings", "schedulers"
_MOST = 2**53  # the largest count
_LISTS = ("optimizer_states", "lr_schedulers")  # entries of Lightning that are lists of dicts
_DICTS = {"loops": dict, "callbacks": object, "hyper_parameters": object}  # and dicts, with the type of their items


def read_training_state(path: str | Path) -> dict[str, Any]:
    """Return the training state of an own checkpoint, as plain values.

    Returns:
        ``position``: the arguments of :class:`d2csr.resumable_loop.TrainingState`; ``step``: batches in all;
        ``optimization``: the mode, or None; ``settings``: nested dicts of the run's configuration, may be empty.

    Raises:
        CheckpointError: the file is broken or malformed, or holds weights alone.
    """
    wanted = (KEY, POSITION, "global_step", "epoch", SETTINGS, SCHEDULES, "state_dict", *_LISTS, *_DICTS)
    content = read_archive(Path(path), wanted)
    if not isinstance(content, dict) or "optimizer_states" not in content or POSITION not in content:
        raise CheckpointError(f"{path}: holds weights alone; use init_from=… instead of resume=….")
    with malformed(path):
        for name in _LISTS:
            _check_dicts(name, content.get(name, []))
        for name, kind in _DICTS.items():
            dict_of(kind, name, content.get(name, {}))
        whole_number("epoch", content.get("epoch"), 0, _MOST)
        _check_optimizers(content["optimizer_states"], content.get("state_dict"))
        mode = content.get("hyper_parameters", {}).get("optimization")
        step = whole_number("global_step", content.get("global_step"), 0, _MOST)
        # Another LightningModule may use the name for anything.
        schedules = dict_of(object, SCHEDULES, content.get(SCHEDULES) or {}) if KEY in content else {}
        for name in ("stage", "count"):  # a resumed run may step its schedulers as often
            whole_number(f"{SCHEDULES}.{name}", schedules.get(name, 0), 0, max(step, content["epoch"]) + 1)
        return {
            "position": _position(content[POSITION]),
            "step": step,
            "optimization": mode if isinstance(mode, str) else None,
            "settings": plain_dict(SETTINGS, content.get(SETTINGS) or {}),
        }


def _check_dicts(name: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConfigError(f"{name}: must be a list of dicts.")


def _check_optimizers(states: list[dict[str, Any]], weights: Any) -> None:
    """Check the parts of optimizer states; a tensor has the shape of a weight or one element."""
    shapes = {value.shape for value in dict_of(Tensor, "state_dict", weights).values()}
    for state in states:
        moments, groups = state.get("state"), state.get("param_groups")
        if not (
            isinstance(moments, dict)
            and all(isinstance(inner, dict) for inner in moments.values())
            and isinstance(groups, list)
            and all(isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups)
        ):
            raise ConfigError("optimizer_states: must hold state and param_groups.")
        for inner in moments.values():
            if not all(v.numel() == 1 or v.shape in shapes for v in inner.values() if isinstance(v, Tensor)):
                raise ConfigError("optimizer_states: holds a tensor that has the shape of no weight.")


def _position(value: Any) -> dict[str, Any]:
    for name, item in dict_of(object, POSITION, value).items():
        if name not in _CHECKS:
            raise ConfigError(f"{POSITION}.{shown_name(name)}: unknown.")
        _CHECKS[name](f"{POSITION}.{name}", item)
    return value


def _check_random(name: str, states: Any) -> None:
    """Set separate generators to the states; numpy's unchecked values are checked before."""
    _check_dicts(name, states)
    try:
        for state in states:
            version, numbers, gauss = state["python"]
            random.Random().setstate((version, tuple(numbers), gauss))
            algorithm, keys, position, *rest = state["numpy"]
            if keys.shape != (624,):
                raise ValueError("numpy")
            whole_number(name, position, 0, 624)
            np.random.RandomState().set_state((algorithm, keys.numpy().astype(np.uint32), position, *rest))
            torch.Generator().set_state(state["torch"])
            if not all(isinstance(cuda, Tensor) and cuda.dtype == torch.uint8 for cuda in state["cuda"]):
                raise TypeError("cuda")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise ConfigError(f"{name}: not the state of the generators ({type(error).__name__}).") from None


_CHECKS: dict[str, Callable[[str, Any], Any]] = {  # of the entries of the position
    **dict.fromkeys(("epoch", "batch", "step", "patches", "rows"), partial(whole_number, least=0, most=_MOST)),
    "closed": flag,
    "random": _check_random,
}
