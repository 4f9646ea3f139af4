"""Loading a model from any form of checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2csr.checkpoints.official import read_official
from d2csr.checkpoints.own import read_own
from d2csr.checkpoints.safetensors_file import is_safetensors, read_safetensors
from d2csr.checkpoints.size import check_size
from d2csr.errors import CheckpointError, ConfigError, one_line, shown_name
from d2csr.files import find_checkpoint
from d2csr.hub.transfer import HubAddress, download, is_address
from d2csr.models import SRNetwork, build_network
from d2csr.models.architectures import ARCHITECTURES

_SHOWN = 500  # characters of a text from the file in a message


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights, its settings, and its training data."""

    path: Path
    settings: dict[str, Any]  # of d2csr.models.build_network, as the file states them
    weights: dict[str, Tensor]  # its state dict, on the CPU, in RGB order
    data: dict[str, Any] = field(default_factory=dict)  # names and paths of the training data
    official: bool = False  # a pickle of the official implementation

    def model(self, classes: Mapping[str, type[SRNetwork]] = ARCHITECTURES) -> SRNetwork:
        """Build the model, on the CPU; raise a CheckpointError for settings or weights that do not fit, and for NaN."""
        require_finite(self.path, self.weights)
        try:
            check_size(self.settings, self.weights)
            model = build_network(self.settings, classes)
        except (TypeError, ConfigError) as error:
            reason = str(error)[:_SHOWN]
            raise CheckpointError(f"{self.path}: describes a network that cannot be built: {reason}") from None
        self.load_into(model)
        return model

    def load_into(self, model: SRNetwork) -> None:
        """Copy the weights into a model; raise a CheckpointError if its architecture is another one."""
        theirs, ours = _flat(self.settings), _flat(model.settings)
        differences = [
            f"{shown_name(name)} is {shown_name(theirs.get(name))} in the checkpoint and {ours.get(name)} here"
            for name in dict.fromkeys([*theirs, *ours])
            if theirs.get(name) != ours.get(name)
        ]
        if differences:
            raise CheckpointError(
                f"{self.path}: a checkpoint of another architecture: {'; '.join(differences)[:_SHOWN]}. "
                "Set these in the configuration, or choose another checkpoint; init_strict=false with init_from=… "
                "loads the weights that fit."
            )
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            detail = one_line(error, _SHOWN)
            raise CheckpointError(f"{self.path}: its weights do not fit its network: {detail}") from None

    def load_matching(self, model: nn.Module) -> list[str]:
        """Copy the weights that fit into a model by name and shape, such as one of another scale or depth.

        Returns:
            Sentences on the tensors that are loaded, those that keep their values, and those that are not used.

        Raises:
            CheckpointError: no layer fits.
        """
        ours = model.state_dict()
        loaded = {name for name, value in self.weights.items() if name in ours and ours[name].shape == value.shape}
        if not any(ours[name].ndim > 1 and "_shift." not in name for name in loaded):  # the colour shifts always fit
            raise CheckpointError(f"{self.path}: no layer has the name and shape of one of this network.")
        model.load_state_dict({name: self.weights[name] for name in loaded}, strict=False)
        sentences = [f"{self.path}: {len(loaded)} of {len(ours)} tensors of the network are loaded."]
        for text, names in (("Initial values are kept in", ours), ("Not used of the checkpoint:", self.weights)):
            if left := _by_module(names, loaded)[:_SHOWN]:
                sentences.append(f"{text} {left}.")
        return sentences


def _by_module(names: Collection[str], loaded: Collection[str]) -> str:
    """Return ``divergence.tails (16 of 24)`` and so on: the modules with tensors that are not loaded."""
    modules = Counter(".".join(name.split(".")[:2]) for name in names)
    left = Counter(".".join(name.split(".")[:2]) for name in names if name not in loaded)
    return ", ".join(f"{module} ({count} of {modules[module]})" for module, count in left.items())


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    body = settings["body"] if isinstance(settings.get("body"), dict) else {"": settings.get("body")}
    return {**settings, "body": None} | {f"body.{name}": value for name, value in body.items()}


def require_finite(path: Path, weights: dict[str, Tensor]) -> None:
    """Raise a CheckpointError that names the first parameter with NaN or infinite values in float32."""
    for name, value in weights.items():
        if not bool(torch.isfinite(value.float()).all()):
            raise CheckpointError(
                f"{path}: the parameter {shown_name(name)} has NaN or infinite values, so its images would be wrong. "
                "Use an earlier checkpoint."
            )


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint or an export of weights of this package, or an official pickle; runs nothing in the file.

    Args:
        path: the file; a run folder: its ``checkpoints/best.ckpt``, else its ``checkpoints/last.ckpt``; a folder with
            ``model.safetensors``; or an address on the hub, ``hf://user/name@revision/file``.

    Raises:
        CheckpointError: the file is missing, broken or foreign, or cannot be downloaded.
        ConfigError: a package is missing.
    """
    path = find_checkpoint(download(HubAddress.parse(path)) if is_address(path) else path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from None
    if start.startswith(b"PK\x03\x04"):  # a zip archive, as torch.save writes; a truncated one is still recognised
        settings, weights, data = read_own(path)
        if path.name == "best.ckpt" and "validated_on" in data:
            data["selected_on"] = data["validated_on"]  # an export keeps it
        return Checkpoint(path, settings, weights, data)
    if is_safetensors(start):
        return Checkpoint(path, *read_safetensors(path))
    settings, weights = read_official(path)
    return Checkpoint(path, settings, weights, official=True)
