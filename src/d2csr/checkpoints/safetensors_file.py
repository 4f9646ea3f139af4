"""Weights as safetensors, with the architecture and ModelSpec metadata.

ModelSpec 1.0.1 (https://github.com/Stability-AI/ModelSpec) is the metadata that image generators and model managers
show. A safetensors file holds tensors and text alone, so that reading it runs no code.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import d2csr
from d2csr.errors import CheckpointError, ConfigError, DataError
from d2csr.files import require_regular_file
from d2csr.hub.model_card import default_title
from d2csr.hub.transfer import CONFIG, MAX_CONFIG
from d2csr.models import SRNetwork
from d2csr.models.architectures import architecture_of

ARCHITECTURE = "d2csr.architecture"  # key of the metadata: the settings of the model, as JSON
ABOUT = ("title", "author", "license")
_MISSING = "safetensors files need the package safetensors; install it by: pip install 'd2csr[export]'."
_MAX_HEADER = 8 * 2**20  # bytes; the paper's network has 0.1 MB


def write_safetensors(
    path: Path, model: SRNetwork, *, dtype: torch.dtype = torch.float32, about: Mapping[str, str] | None = None
) -> None:
    """Write a model's weights, its architecture and its metadata.

    Args:
        path: the file; it is not written atomically.
        model: the model.
        dtype: of the weights in the file.
        about: some of :data:`ABOUT`, for the metadata.

    Raises:
        ConfigError: the package safetensors is missing.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise ConfigError(_MISSING) from None

    weights = {name: value.detach().cpu().to(dtype).contiguous() for name, value in model.state_dict().items()}
    content = hashlib.sha256()
    for name in sorted(weights):
        content.update(weights[name].numpy().tobytes())
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "d2csr",
        "modelspec.implementation": "d2csr",
        "modelspec.title": default_title(model.settings),
        "modelspec.date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.hash_sha256": f"0x{content.hexdigest()}",
        **{f"modelspec.{key}": value for key, value in (about or {}).items() if value},
        "d2csr.version": d2csr.__version__,
        ARCHITECTURE: json.dumps(model.settings),
    }
    path.write_bytes(save(weights, metadata))


def is_safetensors(start: bytes) -> bool:
    """Return whether the first 9 bytes of a file are those of safetensors: the length of a header, then ``{``."""
    return len(start) == 9 and start[8:] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= _MAX_HEADER


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings of the network, and its state dict in single precision.

    A file without the architecture, as other programs write it, needs a ``config.json`` in its folder.

    Raises:
        CheckpointError: the file is broken or foreign.
        ConfigError: the package safetensors is missing.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ConfigError(f"{path}: {_MISSING}") from None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: _single(path, name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        settings = json.loads(metadata[ARCHITECTURE]) if ARCHITECTURE in metadata else _read_config(path)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: a broken safetensors file ({str(error)[:200]}).") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: a malformed checkpoint: the architecture is not a dict of settings.")
    return settings, weights


def _single(path: Path, name: str, value: Tensor) -> Tensor:
    if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise CheckpointError(f"{path}: {name[:100]} is of the type {value.dtype}, not of 16, 32 or 64 bit floats.")
    return value.float()


def _read_config(path: Path) -> Any:
    """Return the settings of the network in the ``config.json`` beside a file, without its other entries."""
    config = path.with_name(CONFIG)
    if not config.exists():
        raise CheckpointError(
            f"{path}: a safetensors file, but no export of this package: it has no architecture, and its folder no "
            f"{CONFIG}."
        )
    try:
        require_regular_file(config, MAX_CONFIG)
        content = json.loads(config.read_bytes())
    except DataError as error:
        raise CheckpointError(str(error)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{config}: cannot be read ({str(error)[:200]}).") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{config}: not a dict of settings.")
    try:
        names = ("architecture", *inspect.signature(architecture_of(content)).parameters)
    except ConfigError as error:
        raise CheckpointError(f"{config}: {error}") from None
    return {name: content[name] for name in names if name in content}
