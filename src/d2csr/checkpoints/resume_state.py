"""Training state in a checkpoint, checked before Lightning restores it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2csr.checkpoints.archive import read_archive
from d2csr.checkpoints.own import dict_of, malformed, plain_dict
from d2csr.checks import flag, whole_number
from d2csr.errors import CheckpointError, ConfigError, shown_name

POSITION = "position"
_COUNTS = ("epoch", "batch", "step", "patches", "rows")
_MOST = 2**53  # the largest count
_ENTRIES = {  # of Lightning, and the type of their items
    "optimizer_states": (list, dict),
    "lr_schedulers": (list, dict),
    "loops": (dict, dict),
    "callbacks": (dict, object),
    "hyper_parameters": (dict, object),
}


def read_training_state(path: str | Path) -> dict[str, Any]:
    """Return the training state of an own checkpoint, as plain values.

    Returns:
        ``position``: the arguments of :class:`d2csr.resumable_loop.TrainingState`; ``step``: batches in all;
        ``optimization``: the mode, or None; ``settings``: nested dicts of the run's configuration, may be empty.

    Raises:
        CheckpointError: the file is broken or malformed, or holds weights alone.
    """
    wanted = (POSITION, "global_step", "epoch", "settings", "state_dict", *_ENTRIES)
    content = read_archive(Path(path), wanted)
    if not isinstance(content, dict) or "optimizer_states" not in content or POSITION not in content:
        raise CheckpointError(f"{path}: holds weights alone; use init_from=… instead of resume=….")
    with malformed(path):
        for name, (container, item) in _ENTRIES.items():
            _check_container(name, content.get(name, container()), container, item)
        whole_number("epoch", content.get("epoch"), 0, _MOST)
        _check_optimizers(content["optimizer_states"], content.get("state_dict"))
        mode = content.get("hyper_parameters", {}).get("optimization")
        return {
            "position": _position(content[POSITION]),
            "step": whole_number("global_step", content.get("global_step"), 0, _MOST),
            "optimization": mode if isinstance(mode, str) else None,
            "settings": plain_dict("settings", content.get("settings") or {}),
        }


def _check_container(name: str, value: Any, container: type, item: type) -> None:
    if container is dict:
        dict_of(item, name, value)
    elif not isinstance(value, list) or not all(isinstance(inner, item) for inner in value):
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
    position = dict_of(object, POSITION, value)
    for name, item in position.items():
        if name in _COUNTS:
            whole_number(f"{POSITION}.{name}", item, 0, _MOST)
        elif name == "closed":
            flag(f"{POSITION}.closed", item)
        elif name == "random":
            _check_container(f"{POSITION}.random", item, list, dict)
            for state in item:
                _check_random(dict_of(object, f"{POSITION}.random", state))
        else:
            raise ConfigError(f"{POSITION}.{shown_name(name)}: unknown.")
    return position


def _check_random(state: dict[str, Any]) -> None:
    """Set separate generators to the states; numpy's unchecked values are checked before."""
    try:
        version, numbers, gauss = state["python"]
        random.Random().setstate((version, tuple(numbers), gauss))
        name, keys, position, *rest = state["numpy"]
        if keys.shape != (624,):
            raise ValueError("numpy")
        whole_number(f"{POSITION}.random", position, 0, 624)
        np.random.RandomState().set_state((name, keys.numpy().astype(np.uint32), position, *rest))
        torch.Generator().set_state(state["torch"])
        if not all(isinstance(cuda, Tensor) and cuda.dtype == torch.uint8 for cuda in state["cuda"]):
            raise TypeError("cuda")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise ConfigError(f"{POSITION}.random: not the state of the generators ({type(error).__name__}).") from None
