"""Loading a model from any form of checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2csr.checkpoints.official import read_official
from d2csr.checkpoints.own import read_own
from d2csr.errors import CheckpointError, ConfigError
from d2csr.models import D2CSR


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights and what is known of them.

    Attributes:
        path: the file.
        settings: the arguments of :class:`d2csr.models.D2CSR`.
        weights: its state dict, on the CPU, in RGB order.
        data: what an own checkpoint says of its training data: ``test_list``, ``root`` and the like; may be empty.
        official: it is a pickle of the official implementation.
    """

    path: Path
    settings: dict[str, Any]
    weights: dict[str, Tensor]
    data: dict[str, Any] = field(default_factory=dict)
    official: bool = False

    def model(self) -> D2CSR:
        """Build the model, with these weights, on the CPU.

        Raises:
            CheckpointError: the weights do not fit the settings.
        """
        try:
            model = D2CSR(**self.settings)
        except (TypeError, ConfigError) as error:
            raise CheckpointError(f"{self.path}: describes a network that cannot be built: {error}") from None
        self.load_into(model)
        return model

    def load_into(self, model: D2CSR) -> None:
        """Copy the weights into a model of the same architecture.

        Raises:
            CheckpointError: the model has another architecture; the message says in what.
        """
        theirs, ours = _flat(self.settings), _flat(model.settings)
        differences = [
            f"{name} is {theirs.get(name)} in the checkpoint and {ours.get(name)} here"
            for name in dict.fromkeys([*theirs, *ours])
            if theirs.get(name) != ours.get(name)
        ]
        if differences:
            raise CheckpointError(
                f"{self.path}: a checkpoint of another architecture: {'; '.join(differences)}. "
                "Set these in the configuration, or choose another checkpoint."
            )
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise CheckpointError(f"{self.path}: its weights do not fit its network: {detail[:400]}") from None


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    body = {f"body.{name}": value for name, value in settings.get("body", {}).items()}
    return {name: value for name, value in settings.items() if name != "body"} | body


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of any form: of ``d2csr-train``, of ``d2csr-convert``, or an official pickle.

    Args:
        path: the file, or a run folder, of which ``checkpoints/best.ckpt`` is taken, else ``checkpoints/last.ckpt``.

    Raises:
        CheckpointError: there is no such file, or it cannot be used.
    """
    path = find_checkpoint(path)
    if _is_zip(path):  # what torch.save writes
        settings, weights, data = read_own(path)
        return Checkpoint(path, settings, weights, data)
    settings, weights = read_official(path)
    return Checkpoint(path, settings, weights, official=True)


def _is_zip(path: Path) -> bool:
    """Go by the beginning: a file that was cut off is still one of ours."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from None


def find_checkpoint(path: str | Path, preferred: tuple[str, ...] = ("best.ckpt", "last.ckpt")) -> Path:
    """Return the checkpoint file that a path means, which may be a run folder.

    Raises:
        CheckpointError: nothing is there.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint.")
    for name in preferred:
        for candidate in (path / "checkpoints" / name, path / name):
            if candidate.is_file():
                return candidate
    raise CheckpointError(f"{path}: a folder without checkpoints/{preferred[0]}. Name a checkpoint or a run folder.")


def load_model(path: str | Path, device: str | torch.device = "cpu") -> D2CSR:
    """Load a model from a local file, ready for inference.

    Args:
        path: a checkpoint of ``d2csr-train``, an export of ``d2csr-convert``, an official pickle (width, depth and
            scale are read off its weights), or a run folder.
        device: where to put the model.

    Returns:
        The model in eval mode; it takes and gives RGB in [0, 1].

    Raises:
        CheckpointError: the file is missing, broken, foreign, or a pickle that asks for more than arrays.
    """
    return read_checkpoint(path).model().to(device).eval()
