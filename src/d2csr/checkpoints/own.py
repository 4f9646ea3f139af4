"""The form of the project's own checkpoints.

A training checkpoint and exported weights share it, so whatever reads the one reads the other: under ``"d2csr"`` a
plain description, under ``"state_dict"`` the weights, those of the model with the prefix ``network.``. Where training
averages the weights, ``"state_dict"`` holds those that it goes on from, and ``"average"`` the result, without prefix.
Everything loads with ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import d2csr
from d2csr.errors import CheckpointError
from d2csr.files import write_checkpoint_file
from d2csr.models import D2CSR

KEY = "d2csr"
AVERAGE = "average"
PREFIX = "network."
_FORMAT = 2  # 1: the settings of the body lay among those of the network


def describe(model: D2CSR, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what a checkpoint says of itself: format, version, the network's settings, its training data."""
    return {"format": _FORMAT, "version": d2csr.__version__, "network": model.settings, "data": data or {}}


def save_model(path: str | Path, model: D2CSR, data: dict[str, Any] | None = None) -> None:
    """Export a model's weights, for :func:`d2csr.load_model`, without any state of a training.

    Args:
        path: the file to write; an existing one is replaced only once the new one is whole.
        model: the model, on any device.
        data: where its training data lies, as plain strings and numbers.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    weights = {PREFIX + name: value.detach().cpu() for name, value in model.state_dict().items()}
    with write_checkpoint_file(path) as partial:
        torch.save({KEY: describe(model, data), "state_dict": weights}, partial)


def read_own(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Read an own checkpoint: the network's settings, its state dict, and the description of its data.

    Where there is an average of the weights, it is what is returned.

    Raises:
        CheckpointError: the file is broken, holds more than plain values and tensors, or is not one of ours.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the check sums
        if damaged:
            raise zipfile.BadZipFile(f"the check sum of {damaged} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip errors, unpickling errors, RuntimeError: by how the file is broken
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise CheckpointError(f"{path}: a broken or foreign checkpoint ({reason}).") from None
    about, state = (content.get(key) if isinstance(content, dict) else None for key in (KEY, "state_dict"))
    if not (
        isinstance(about, dict)
        and isinstance(about.get("network"), dict)
        and isinstance(state, dict)
        and all(isinstance(name, str) for name in state)
    ):
        raise CheckpointError(
            f"{path}: a PyTorch file, but no checkpoint of this package. Known forms: checkpoints of d2csr-train, "
            "exports of d2csr-convert, and official D2C-SR pickles."
        )
    if about.get("format", 0) > _FORMAT:
        raise CheckpointError(f"{path}: written by a newer version of d2csr ({about.get('version')}); please update.")
    weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    weights |= content.get(AVERAGE) or {}
    return _current(about["network"]), weights, about.get("data") or {}


def _current(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a network as :class:`d2csr.models.D2CSR` takes them now."""
    if "body" in settings:
        return settings
    inner = ("groups", "blocks", "reduction")
    outer = {key: value for key, value in settings.items() if key not in inner}
    return {**outer, "body": {"name": "rcab", **{key: settings[key] for key in inner if key in settings}}}
